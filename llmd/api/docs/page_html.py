"""The page's HTML with its style: nothing in it comes from elsewhere."""

from __future__ import annotations

_STYLE = """\
:root {
  color-scheme: light dark;
  --back: #fff; --text: #1b1f24; --soft: #59636e; --line: #d5dae0; --code: #f2f4f7;
  --link: #0757b8; --get: #0a6b3d; --post: #0757b8; --put: #8a4b00; --delete: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #14171b; --text: #e4e8ec; --soft: #a0a9b4; --line: #343b44; --code: #20262d;
    --link: #7db7ff; --get: #6fd39d; --post: #7db7ff; --put: #f0b45f; --delete: #ff938a;
  }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body {
  margin: 0 auto; max-width: 80rem; padding: 1rem 1.25rem 4rem;
  background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word;
}
a { color: var(--link); }
h1 { margin: .5rem 0 0; }
h2 { margin: 2.5rem 0 .5rem; border-bottom: 2px solid var(--line); }
h4 { margin: 1rem 0 .25rem; font-size: .95rem; }
p { margin: .35rem 0; }
code, pre { font: .875rem/1.5 ui-monospace, monospace; }
code { background: var(--code); border-radius: .25rem; padding: .05rem .25rem; }
pre {
  background: var(--code); border-radius: .4rem; padding: .6rem .8rem; margin: .5rem 0;
  overflow-x: auto;
}
nav ul { list-style: none; margin: 0; padding: 0; }
nav a { display: flex; align-items: baseline; padding: .15rem 0; text-decoration: none; }
nav a span { overflow-wrap: anywhere; }
nav .method { flex: 0 0 4.3em; line-height: inherit; }
nav h2 { font-size: .9rem; margin: 1rem 0 .2rem; border: 0; color: var(--soft); }
article { border-top: 1px solid var(--line); padding: 1rem 0 .5rem; }
h2 + article { border-top: 0; }
article h3 { margin: 0; font-size: 1.05rem; font-weight: 600; overflow-wrap: anywhere; }
article h3 a { color: inherit; text-decoration: none; }
.method { font: 700 .875rem/1 ui-monospace, monospace; margin-right: .3rem; }
.get { color: var(--get); } .post { color: var(--post); } .delete { color: var(--delete); }
.put, .patch { color: var(--put); }
.who {
  font-size: .8rem; font-weight: 400; color: var(--soft); border: 1px solid var(--line);
  border-radius: 1rem; padding: .05rem .5rem; margin-left: .3rem; white-space: nowrap;
}
.soft { color: var(--soft); }
dl { margin: .25rem 0; }
dt { margin-top: .4rem; overflow-wrap: anywhere; }
dd { margin: 0 0 0 1.25rem; }
dd p { margin: 0; }
details { margin: .5rem 0; }
.codes {
  display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; list-style: none; padding: 0; margin: .3rem 0;
}
summary { cursor: pointer; color: var(--link); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; }
tr { border-bottom: 1px solid var(--line); }
td.short { white-space: nowrap; }
td p { margin: 0; }
@media (max-width: 40rem) {
  body { padding: .5rem .8rem 3rem; }
  table, tbody, tr, td { display: block; }
  thead { display: none; }
  tr { padding: .4rem 0; }
  td { padding: 0; }
  td.short { display: inline; margin-right: .5rem; }
}
@media (max-width: 64rem) {
  nav ul { columns: 16rem; column-gap: 1.5rem; }
  nav li { break-inside: avoid; }
}
@media (min-width: 64rem) {
  .page { display: grid; grid-template-columns: 17rem minmax(0, 1fr); gap: 2.5rem; }
  nav { position: sticky; top: 0; max-height: 100vh; overflow-y: auto; padding-bottom: 2rem; }
}
"""

_MACROS = """\
{% macro type(parts) %}
{% for part in parts %}
{% if part.object %}
<a href="#object-{{ part.object }}">{{ part.text }}</a>
{%- else %}
{{ part.text }}
{%- endif %}
{% endfor %}
{% endmacro %}

{% macro fields(rows) %}
<dl>
  {% for row in rows %}
  <dt><code>{{ row.name }}</code> <span class="soft">{{ type(row.type) }}
    {%- if row.note %}; {{ row.note }}{% endif %}</span></dt>
  {% if row.description %}<dd>{{ row.description | prose }}</dd>{% endif %}

  {% endfor %}
</dl>
{% endmacro %}
"""

TEMPLATE = (
    _MACROS
    + """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ info.title }}: HTTP API</title>
<style>
"""
    + _STYLE
    + """\
</style>
</head>
<body>
<header>
<h1>{{ info.title }} <small class="soft">{{ info.version }}</small></h1>
{{ info.description | prose }}
<p>For programs: <a href="openapi.json">openapi.json</a>, OpenAPI 3.1.</p>
</header>
<div class="page">
<nav aria-label="Routes">
<h2>All routes</h2>
<ul>
  <li><a href="#key">Address and key</a></li>
  <li><a href="#errors">Errors</a></li>
  <li><a href="#objects">Objects</a></li>
</ul>
{% for tag, entries in sections.items() %}
<h2>{{ tag }}</h2>
<ul>
  {% for entry in entries %}
  <li><a href="#{{ entry.id }}"><span class="method {{ entry.method | lower }}">
    {{- entry.method }}</span><span>{{ entry.path }}</span></a></li>
  {% endfor %}
</ul>
{% endfor %}
</nav>
<main>
<section id="key">
<h2>Address and key</h2>
<p>Send the key as <code>Authorization: Bearer KEY</code>, as <code>Authorization: KEY</code>, as
<code>x-api-key: KEY</code> or as <code>api-key: KEY</code>; never in the URL. An admin makes keys
by <code>llmd key create NAME</code>, or here by <code>POST /auth/key</code>.</p>
<p>The examples below take both from the shell:</p>
<pre>export LLMD_URL=http://HOST:5000
export LLMD_KEY=llmd_…</pre>
</section>
<section id="errors">
<h2>Errors</h2>
<p>Every error has <a href="#object-Error">the same body</a>, and is best told from others by its
<code>code</code>.
<code>param</code> names the field that is wrong. Where <code>Retry-After</code> is sent, try again
after so many seconds.</p>
<pre>{"error": {"message": "…", "type": "invalid_request_error", "param": "max_tokens",
           "code": "invalid_field"}, "message": "…"}</pre>
<table>
<thead><tr><th>Status</th><th>Code</th><th>When</th></tr></thead>
<tbody>
{% for cause in causes %}
<tr><td class="short">{{ cause.status }}</td> <td class="short"><code>{{ cause.code }}</code></td>
<td>{{ cause.text | prose }}</td></tr>
{% endfor %}
</tbody>
</table>
</section>
{% for tag, entries in sections.items() %}
<section>
<h2>{{ tag }}</h2>
{% for entry in entries %}
<article id="{{ entry.id }}">
<h3><a href="#{{ entry.id }}"><span class="method {{ entry.method | lower }}">
  {{- entry.method }}</span>{{ entry.path }}</a><span class="who">{{ entry.who }}</span></h3>
<p>{{ entry.operation.summary }}.</p>
{% if entry.operation.description %}
{{ entry.operation.description | prose }}
{% endif %}
{% if entry.aliases %}
<p>Also at {% for path in entry.aliases %}<code>{{ path }}</code>
  {%- if not loop.last %}, {% endif %}{% endfor %}.</p>
{% endif %}
{% if entry.parameters %}
<h4>Parameters</h4>
{{ fields(entry.parameters) }}
{% endif %}
{% if entry.body %}
<h4>Body{% if entry.operation.body_optional %}, which may be left out{% endif %}</h4>
{% if entry.body.fields %}
{{ fields(entry.body.fields) }}
{% else %}
<p class="soft">{{ type(entry.body.type) }}</p>
{% endif %}
{% endif %}
<pre>{{ entry.curl }}</pre>
{% if entry.operation.stream %}
<h4>With <code>"stream": true</code></h4>
{{ entry.operation.stream | prose }}
{% endif %}
<details><summary>Answer: {{ entry.operation.status }}
  {%- if entry.reply %}, {{ entry.operation.content_type }}{% else %}, without a body{% endif %}
</summary>
{% if entry.reply and entry.reply.fields %}
{{ entry.reply.description | prose }}
{{ fields(entry.reply.fields) }}
{% elif entry.reply %}
<p class="soft">{{ type(entry.reply.type) }}</p>
{% endif %}
</details>
<details><summary>Errors</summary>
<ul class="codes">
  {% for cause in entry.causes %}
  <li>{{ cause.status }} <code>{{ cause.code }}</code></li>
  {% endfor %}
</ul>
</details>
</article>
{% endfor %}
</section>
{% endfor %}
<section id="objects">
<h2>Objects</h2>
{% for name, object in objects.items() %}
<article id="object-{{ name }}">
<h3>{{ name }}</h3>
{% if object.description %}{{ object.description | prose }}{% endif %}

{{ fields(object.fields) }}
</article>
{% endfor %}
</section>
</main>
</div>
</body>
</html>
"""
)
