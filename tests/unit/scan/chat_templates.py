"""Chat templates in the manner of well-known models: what each of them really asks and calls."""

from __future__ import annotations

# Dates by default, tools as JSON, a system message taken off the front.
LLAMA_31 = """{{- bos_token }}
{%- if custom_tools is defined %}{% set tools = custom_tools %}{% endif %}
{%- if not date_string is defined %}
  {%- if strftime_now is defined %}{% set date_string = strftime_now("%d %b %Y") %}
  {%- else %}{% set date_string = "26 Jul 2024" %}{% endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
  {%- set system_message = messages[0]['content'] | trim %}
  {%- set messages = messages[1:] %}
{%- else %}{% set system_message = "" %}{% endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday: " + date_string + "\\n" }}
{%- for t in tools or [] %}{{ t | tojson(indent=4) }}{% endfor %}
{{- system_message }}<|eot_id|>
{%- for message in messages %}
  {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>' }}
    {{- message['content'] | trim }}<|eot_id|>
  {%- elif 'tool_calls' in message %}
    {%- if message.tool_calls | length != 1 %}
      {{- raise_exception("only one tool call at once") }}
    {%- endif %}
    {%- set tool_call = message.tool_calls[0].function %}
    {%- for name, value in tool_call.arguments | items %}{{ name }}="{{ value }}"{% endfor %}
  {%- elif message.content is mapping or message.content is iterable %}
    {{- message.content | tojson }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{% endif %}
"""
# Looks for markup in what was said, and backwards for the last question.
QWEN_3 = """{%- set ns = namespace(multi_step_tool=true, last=messages | length - 1) %}
{%- for message in messages[::-1] %}
  {%- set index = (messages | length - 1) - loop.index0 %}
  {%- if ns.multi_step_tool and message.role == "user" and message.content is string
      and not (message.content.startswith('<tool_response>')
      and message.content.endswith('</tool_response>')) %}
    {%- set ns.multi_step_tool = false %}{% set ns.last = index %}
  {%- endif %}
{%- endfor %}
{%- for message in messages %}
  {%- set content = message.content if message.content is string else '' %}
  {%- set reasoning_content = '' %}
  {%- if message.reasoning_content is string %}
    {%- set reasoning_content = message.reasoning_content %}
  {%- elif '</think>' in content %}
    {%- set reasoning_content = content.split('</think>')[0].split('<think>')[-1].lstrip() %}
    {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
  {%- endif %}
  {{- '<|im_start|>' + message.role + '\\n' + reasoning_content.strip('\\n') + content }}
  {%- for tool_call in message.tool_calls or [] %}
    {{- '<tool_call>' }}{{ tool_call.name }}{{ tool_call.arguments | tojson }}</tool_call>
  {%- endfor %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
  {%- if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}
{%- endif %}
"""
# Roles must take turns; parts of a content; ids of calls have a length.
MISTRAL = """{%- if messages[0]["role"] == "system" %}
  {%- set system_message = messages[0]["content"] %}{% set loop_messages = messages[1:] %}
{%- else %}{% set loop_messages = messages %}{% endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}{% set ns.index = 0 %}
{%- for message in loop_messages %}
  {%- if not (message.role == "tool" or message.tool_calls is defined) %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
      {{- raise_exception("roles must take turns") }}
    {%- endif %}{% set ns.index = ns.index + 1 %}
  {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
  {%- if message["role"] == "user" and message["content"] is string %}
    {%- if tools is not none and message == user_messages[-1] %}
      {{- "[AVAILABLE_TOOLS] " }}{% for t in tools %}{{ t.function | tojson }}{% endfor %}
    {%- endif %}
    {{- "[INST] " + system_message + message["content"] + "[/INST]" }}
  {%- elif message["role"] == "user" %}
    {%- for block in message["content"] %}
      {%- if block["type"] == "text" %}{{ block["text"] }}{% else %}[IMG]{% endif %}
    {%- endfor %}
  {%- elif message["role"] == "tool" and message.tool_call_id | length != 9 %}
    {{- raise_exception("ids have nine characters") }}
  {%- else %}{{ message["content"] }}{{ eos_token }}{% endif %}
{%- endfor %}
"""
DEEPSEEK_CODER_V2 = """{% if not add_generation_prompt is defined %}
{% set add_generation_prompt = false %}{% endif %}{{ bos_token }}
{%- for message in messages %}{% if message['role'] == 'user' %}
{{ 'User: ' + message['content'] + '\\n\\n' }}{% elif message['role'] == 'assistant' %}
{{ 'Assistant: ' + message['content'] + eos_token }}{% elif message['role'] == 'system' %}
{{ message['content'] + '\\n\\n' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}
"""
# Reasoning is cut off, calls are followed through a namespace.
DEEPSEEK_R1 = """{% set ns = namespace(is_first=false, is_tool=false, system_prompt='') %}
{%- for message in messages %}{% if message['role'] == 'system' %}
{%- set ns.system_prompt = ns.system_prompt + message['content'] %}{% endif %}{% endfor %}
{{- bos_token }}{{ ns.system_prompt }}
{%- for message in messages %}
  {%- if message['role'] == 'assistant' and message['content'] is not none %}
    {%- set content = message['content'] %}
    {%- if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}
    {{- '<assistant>' + content }}
  {%- elif message['role'] == 'tool' %}{{ '<tool>' + message['content'] }}
  {%- endif %}
{%- endfor %}
"""
SMOLLM2 = """{% for message in messages %}
{%- if loop.first and messages[0]['role'] != 'system' %}<|im_start|>system
You are a helpful AI assistant<|im_end|>
{% endif %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' }}
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
# What trainers mark, and a macro.
WITH_GENERATION = """{%- macro said(m) %}{{ m.content | trim }}{% endmacro %}
{%- for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ said(m) }}
{%- endgeneration %}{% else %}{{ said(m) }}{% endif %}{% endfor %}
"""

ORDINARY = {
    "llama-3.1": LLAMA_31,
    "qwen-3": QWEN_3,
    "mistral": MISTRAL,
    "deepseek-coder-v2": DEEPSEEK_CODER_V2,
    "deepseek-r1": DEEPSEEK_R1,
    "smollm2": SMOLLM2,
    "generation": WITH_GENERATION,
}
