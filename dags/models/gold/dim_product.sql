-- Grain: one product, that is one (source, product_id) that was put into a cart or bought, as it was last called and priced.
{{ config(unique_key='product_key') }}

with seen as (
    select p.source, i.product_id, i.name, if(i.name is not null, p.time) as named_at, i.price_usd, p.time as first_seen_at, p.time as last_seen_at
    from {{ new_rows(source('silver', 'purchase')) }} as p
    cross join unnest(transform(p.products, each -> row(each.product_id, each.name, each.price_usd))) as i (product_id, name, price_usd)
    union all
    select source, product_id, name, if(name is not null, time), price_usd, time, time
    from {{ new_rows(source('silver', 'add_to_cart')) }}
),

{% if is_incremental() %}
known as (
    select source, product_id, name, named_at, price_usd, first_seen_at, last_seen_at from seen
    union all
    select source, product_id, name, named_at, cast(price_usd as double), first_seen_at, last_seen_at from {{ this }}
    where product_key in (select {{ hash(['source', 'product_id']) }} from seen)
)
{% else %}
known as (select * from seen)
{% endif %}

select
    {{ hash(['source', 'product_id']) }} as product_key,
    source,
    product_id,
    max_by(name, (named_at, name)) filter (where name is not null) as name,
    cast(max_by(price_usd, (last_seen_at, price_usd)) as decimal(12, 2)) as price_usd,
    max(named_at) as named_at,
    min(first_seen_at) as first_seen_at,
    max(last_seen_at) as last_seen_at
from known
group by source, product_id
