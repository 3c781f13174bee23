"""Small chat templates, each in one of the forms that templates of models have."""

from __future__ import annotations

_LOOP = """\
{%- if tools %}<|im_start|>system
{{ tools | tojson }}<|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == 'user' %}<|im_start|>user
{{ message.content }}<|im_end|>
{% elif message.role == 'assistant' %}<|im_start|>assistant
THOUGHT{{ message.content }}CALLS<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
PROMPT{% endif %}"""


def chat_template(*, calls: str = "", thought: str = "", prompt: str = "") -> str:
    """Return a template with these pieces where calls, thoughts and the next answer begin."""
    return _LOOP.replace("CALLS", calls).replace("THOUGHT", thought).replace("PROMPT", prompt)


def each_call(text: str) -> str:
    """Return a piece of a template that writes this text for each call."""
    loop = "{%- for call in message.tool_calls or [] %}"
    return f"{loop}{{%- set f = call.function %}}{text}{{%- endfor %}}"


OBJECT_CALLS = each_call(
    '{{ \'\\n<tool_call>\\n{"name": "\' ~ f.name ~ \'", "arguments": \' }}'
    "{{ f.arguments | tojson }}{{ '}\\n</tool_call>' }}"
)

LIST_CALLS = (
    "{%- if message.tool_calls %}{{ '<|calls|>[' }}"
    "{%- for call in message.tool_calls %}"
    '{{ \'{"tool_call_id": "\' ~ loop.index0 ~ \'", "tool_name": "\' ~ call.function.name }}'
    "{{ '\", \"parameters\": ' ~ (call.function.arguments | tojson) ~ '}' }}"
    "{{ ', ' if not loop.last }}{%- endfor %}{{ ']<|/calls|>' }}{%- endif %}"
)

KEYED_CALLS = (
    "{%- if message.tool_calls %}{{ '<|tools|>[' }}"
    "{%- for call in message.tool_calls %}"
    "{{ '{\"' ~ call.function.name ~ '\": ' ~ (call.function.arguments | tojson) ~ '}' }}"
    "{{ ', ' if not loop.last }}{%- endfor %}{{ ']<|/tools|>' }}{%- endif %}"
)

BARE_CALL = (
    "{%- if message.tool_calls %}{%- set f = message.tool_calls[0].function %}"
    "{%- if message.tool_calls | length > 1 %}{{ raise_exception('one call only') }}{%- endif %}"
    "{{ '{\"name\": \"' ~ f.name ~ '\", \"parameters\": ' ~ (f.arguments | tojson) ~ '}' }}"
    "{%- endif %}"
)

INDEXED_CALLS = (
    "{%- if message.tool_calls %}{{ '<|calls_begin|>' }}"
    "{%- for call in message.tool_calls %}"
    "{{ '<|call_begin|>functions.' ~ call.function.name ~ ':' ~ loop.index0 }}"
    "{{ '<|argument_begin|>' ~ (call.function.arguments | tojson) ~ '<|call_end|>' }}"
    "{%- endfor %}{{ '<|calls_end|>' }}{%- endif %}"
)

CALLS_WITH_ID = each_call(
    "{{ '[TOOL_CALLS]' ~ f.name ~ '[CALL_ID]' ~ call.id ~ '[ARGS]' }}{{ f.arguments | tojson }}"
)

TAGGED_CALLS = each_call(
    "{{ '\\n<tool_call>\\n<function=' ~ f.name ~ '>\\n' }}"
    "{%- for key, value in f.arguments.items() %}"
    "{{ '<parameter=' ~ key ~ '>\\n' ~ value ~ '\\n</parameter>\\n' }}"
    "{%- endfor %}{{ '</function>\\n</tool_call>' }}"
)

KEY_VALUE_CALLS = each_call(
    "{{ '<tool_call>' ~ f.name }}"
    "{%- for key, value in f.arguments.items() %}"
    "{{ '<arg_key>' ~ key ~ '</arg_key><arg_value>' ~ value ~ '</arg_value>' }}"
    "{%- endfor %}{{ '</tool_call>' }}"
)

TYPED_CALLS = (
    "{%- if message.tool_calls %}{{ '\\n\\n<|D|calls>\\n' }}"
    "{%- for call in message.tool_calls %}"
    "{{ '<|D|invoke name=\"' ~ call.function.name ~ '\">\\n' }}"
    "{%- for key, value in call.function.arguments.items() %}"
    "{{ '<|D|parameter name=\"' ~ key ~ '\" string=\"' }}"
    "{{ ('true' if value is string else 'false') ~ '\">' ~ value ~ '</|D|parameter>\\n' }}"
    "{%- endfor %}{{ '</|D|invoke>\\n' }}{%- endfor %}{{ '</|D|calls>' }}{%- endif %}"
)

NESTED_CALLS = (
    "{%- if message.tool_calls %}{{ ']|[<tool_call>\\n' }}"
    "{%- for call in message.tool_calls %}"
    "{{ ']|[<invoke name=\"' ~ call.function.name ~ '\">' }}"
    "{%- for key, value in call.function.arguments.items() %}"
    "{{ ']|[<' ~ key ~ '>' ~ value ~ ']|[</' ~ key ~ '>' }}"
    "{%- endfor %}{{ ']|[</invoke>\\n' }}{%- endfor %}{{ ']|[</tool_call>' }}{%- endif %}"
)

PAIRS_CALLS = each_call(
    "{{ '<|tool_call>call:' ~ f.name ~ '{' }}"
    "{%- for key, value in f.arguments | dictsort %}"
    "{%- set quote = '<|\"|>' if value is string else '' %}"
    "{{ key ~ ':' ~ quote ~ value ~ quote ~ (',' if not loop.last else '') }}"
    "{%- endfor %}{{ '}<tool_call|>' }}"
)

PYTHON_CALLS = (
    "{%- if message.tool_calls %}{{ '<|calls_begin|>[' }}"
    "{%- for call in message.tool_calls %}{{ call.function.name ~ '(' }}"
    "{%- for key, value in call.function.arguments.items() %}"
    "{%- set quote = \"'\" if value is string else '' %}"
    "{{ key ~ '=' ~ quote ~ value ~ quote ~ (', ' if not loop.last else '') }}"
    "{%- endfor %}{{ ')' ~ (', ' if not loop.last else '') }}"
    "{%- endfor %}{{ ']<|calls_end|>' }}{%- endif %}"
)

TAGGED_THOUGHT = (
    "{% if message.reasoning_content %}"
    "{{ '<think>\\n' ~ message.reasoning_content ~ '\\n</think>\\n\\n' }}{%- endif %}"
)

CHANNELS = """\
{%- if tools %}<|start|>developer<|message|>{{ tools | tojson }}<|end|>{% endif %}
{%- for message in messages %}
{%- if message.role == 'user' %}<|start|>user<|message|>{{ message.content }}<|end|>
{%- elif message.role == 'assistant' %}
{%- if message.thinking %}<|start|>assistant<|channel|>analysis<|message|>\
{{ message.thinking }}<|end|>{% endif %}
{%- if message.tool_calls %}<|start|>assistant to=functions.\
{{ message.tool_calls[0].function.name }}<|channel|>commentary json<|message|>\
{{ message.tool_calls[0].function.arguments | tojson }}<|call|>
{%- else %}<|start|>assistant<|channel|>final<|message|>{{ message.content }}<|return|>
{%- endif %}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|start|>assistant{% endif %}"""

LEAD = """\
{{ tools | tojson if tools }}
{%- for message in messages %}
{%- if message.role == 'user' %}<|head|>user<|/head|>{{ message.content }}<|eot|>
{%- elif message.role == 'assistant' %}<|head|>assistant<|/head|>
{%- if message.content %}>>>all
{{ message.content }}{% endif %}
{%- for call in message.tool_calls or [] %}{{ '>>>' ~ call.function.name ~ '\\n' }}\
{{ call.function.arguments | tojson }}{% endfor %}<|eot|>{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|head|>assistant<|/head|>>>>{% endif %}"""
