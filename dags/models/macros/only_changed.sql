{# At the end of an incremental model: leaves the rows that are not in its table, or differ there. #}
{% macro only_changed() -%}
    {% if is_incremental() %}
    except
    select * from {{ this }}
    {% endif %}
{%- endmacro %}
