{#
The rows that `relation` gained since this model was last built, as something to select from (decision 0027). What a model was built from
stands in the property headrace.built-from of its table; remember_snapshots writes it after the rows.

All rows: at the first build, and where the snapshots in between are not there any more, did more than append (rows were removed), or
appended to a table in which files still say which rows are deleted (until a compaction).
None: where there is no new snapshot, or new ones only wrote the same rows into other files.
#}
{% macro new_rows(relation) -%}
    {%- if not execute or not adapter.get_relation(relation.database, relation.schema, relation.identifier) -%}
        {{ return(relation | string) }}
    {%- endif -%}
    {%- set name = relation.schema ~ '.' ~ relation.identifier -%}
    {%- call statement('snapshots', fetch_result=true) -%}
        select
            cast(snapshot_id as varchar),
            cast(parent_id as varchar),
            case {#- table_changes reads no snapshot of a table that has delete files, be they of an earlier one #}
                when operation <> 'replace' and element_at(summary, 'total-delete-files') <> '0' then 'beside deleted rows'
                {#- a merge that only adds calls itself an overwrite too #}
                when element_at(summary, 'deleted-data-files') is null and element_at(summary, 'added-delete-files') is null then 'append'
                else operation
            end
        from {{ metadata_of(relation, 'snapshots') }}
        union all
        select value, null, key from {{ metadata_of(relation, 'properties') }} where key = 'current-snapshot-id'
        {% if is_incremental() %}
        union all
        select value, null, key from {{ metadata_of(this, 'properties') }} where key = 'headrace.built-from'
        {% endif %}
    {%- endcall -%}
    {%- set found = namespace(now='none', since='none', at=none, start=none, gained=[]) -%}
    {%- set snapshots = {} -%}
    {%- for value, parent, what in load_result('snapshots').data -%}
        {%- if what == 'current-snapshot-id' -%}{%- set found.now = value -%}
        {%- elif what == 'headrace.built-from' -%}{%- set found.since = fromjson(value).get(name, 'none') -%}
        {%- else -%}{%- do snapshots.update({value: (parent, what)}) -%}
        {%- endif -%}
    {%- endfor -%}
    {#- From the present snapshot back to the one that is known; `at` ends elsewhere where that is no ancestor. `start` is the one before
        the first that added rows: the known one, of which only its number may be left, or a compaction of it. -#}
    {%- set found.at = found.now -%}
    {%- for _ in snapshots if found.at in snapshots and found.at != found.since -%}
        {%- set parent, what = snapshots[found.at] -%}
        {%- do found.gained.append(what) -%}
        {%- if what == 'append' -%}{%- set found.start = parent -%}{%- endif -%}
        {%- set found.at = parent -%}
    {%- endfor -%}
    {%- set appended = found.at == found.since and found.gained | reject('in', ('append', 'replace')) | list == [] -%}
    {%- set note = '/* built from ' ~ name ~ ' ' ~ found.since ~ ' to ' ~ found.now ~ ' */ ' -%}
    {%- if is_incremental() and appended and 'append' not in found.gained -%}
        {{ return(note ~ '(select * from ' ~ relation ~ ' where false)') }}
    {%- elif not is_incremental() or not appended or found.start not in snapshots -%}
        {{ return(note ~ relation) }}
    {%- else -%}
        {#- The limit limits nothing: it keeps the function in a stage of its own, without which Trino 476 cannot plan some joins
            ("Cannot overwrite distribution with SOURCE"). -#}
        {{ return(note ~ "(select * from table(" ~ relation.database ~ ".system.table_changes(schema_name => '" ~ relation.schema
            ~ "', table_name => '" ~ relation.identifier ~ "', start_snapshot_id => " ~ found.start ~ ", end_snapshot_id => " ~ found.now
            ~ ")) limit 1000000000000)") }}
    {%- endif -%}
{%- endmacro %}

{# One of Iceberg's tables about a table. #}
{% macro metadata_of(relation, what) -%}
    "{{ relation.database }}"."{{ relation.schema }}"."{{ relation.identifier }}${{ what }}"
{%- endmacro %}

{# After each model: what it was built from, where that is something new. It comes after the rows: a build that is cut off in between reads
   the same rows again, and every model gives the same for them. #}
{% macro remember_snapshots() -%}
    {%- set built = {} -%}
    {%- set moved = namespace(any=false) -%}
    {%- for name, since, now in modules.re.findall('built from (\S+) (\S+) to (\S+) ', model.compiled_code or '') -%}
        {%- do built.update({name: now}) -%}
        {%- if since != now -%}{%- set moved.any = true -%}{%- endif -%}
    {%- endfor -%}
    {%- if moved.any -%}
    alter table {{ this }} set properties extra_properties = map(array['headrace.built-from'], array['{{ tojson(built) }}'])
    {%- endif -%}
{%- endmacro %}
