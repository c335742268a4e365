{# One column for a customer: ids of customers are unique within a source only. #}
{% macro customer_key(source, customer_id) -%}
    {{ hash([source, customer_id]) }}
{%- endmacro %}

{# Who was there: the visit, where the source names it (who logs in on the way is still the same), else the customer. #}
{% macro visitor_key(source, session_id, customer_id) -%}
    {{ hash([source, "coalesce('visit ' || " ~ session_id ~ ", 'customer ' || " ~ customer_id ~ ")"]) }}
{%- endmacro %}

{# One column for several columns of text; null where one of them is. #}
{% macro hash(columns) -%}
    lower(to_hex(md5(to_utf8({{ columns | join(' || chr(31) || ') }}))))
{%- endmacro %}
