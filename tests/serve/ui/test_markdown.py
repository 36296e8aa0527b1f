"""Markdown to elements: cases, whole and while they stream."""
import json
import random
import unittest

from mock_server import Answer
from page_test import HERE, PageTest, sample

# A host's content as short HTML: code as <pre LANGUAGE>, tables without their frame, only telling attributes.
SHORT = """
const short = (of) => {
    if (of.nodeType === Node.TEXT_NODE)
        return of.data.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
    const inside = () => [...of.childNodes].map(short).join('');
    if (of.matches('figure')) {
        const code = short(of.querySelector('code')).replace(/<[^>]*>/g, '');
        return `<pre ${of.querySelector('.language').textContent}>${code}</pre>`;
    }
    if (of.matches('div.table') || of.dataset.host)
        return inside();
    if (of.matches('br, hr'))
        return `<${of.localName}>`;
    const telling = ({ name, value }) => ['href', 'start'].includes(name) || value.startsWith('align-');
    const written = ({ name, value }) => ` ${name}="${value.replaceAll('"', '&quot;')}"`;
    const kept = [...of.attributes].filter(telling).map(written).join('');
    return `<${of.localName}${kept}>${inside()}</${of.localName}>`;
};
const host = document.createElement('div');
host.dataset.host = 'yes';
document.body.append(host);
"""

RENDER = "return import('/markdown.js').then(({ MarkdownView }) => {" + SHORT + """
    return arguments[0].map(([, source]) => {
        host.replaceChildren();
        new MarkdownView(host).update(source, arguments[1]);
        return short(host);
    });
}).finally(() => document.querySelector('[data-host]')?.remove());
"""

# Streams arguments[0] cut at arguments[1]; the result, the whole's, and how often an element that had text after it
# was replaced or changed what it said.
STREAM = "return import('/markdown.js').then(({ MarkdownView }) => {" + SHORT + """
    const [source, cuts] = arguments;
    const view = new MarkdownView(host);
    let settled = [], broken = 0;
    for (const cut of cuts) {
        view.update(source.slice(0, cut), true);
        const changed = ([element, text], i) => host.children[i] !== element || element.textContent !== text;
        broken += settled.filter(changed).length;
        settled = [...host.children].slice(0, -1).map((element) => [element, element.textContent]);
    }
    view.update(source, false);
    const streamed = short(host);
    host.replaceChildren();
    new MarkdownView(host).update(source, false);
    return [streamed, short(host), broken];
}).finally(() => document.querySelector('[data-host]')?.remove());
"""

HOSTILE = {
    "emphasis that never ends": "*a " * 20000, "both emphases": "*a **b " * 10000, "one long run": "*" * 60000,
    "brackets": "[" * 30000, "half links": "[a](" * 10000,
    "emphasis in brackets": "[_a " * 8000 + "a* ]" * 8000 + "](x)",
    "backticks": " ".join("`" * i for i in range(1, 400)), "quotes": ">" * 20000, "angles": "<" * 20000,
    "entities": "&" * 20000, "bars": "|" * 20000 + "\n" + "|-" * 20000, "dashes": "- " * 20000,
    "spaces": "# " + " " * 50000 + "x", "nested emphasis": "**a *b " * 3000 + "c* d** " * 3000,
    "nested lists": "\n".join(" " * (2 * i) + "- x" for i in range(300)), "lines": "a\n" * 20000,
    "rows": "|a|b|\n" * 10000, "quotes in code": "```js\n" + "'\\" * 20000, "comment in code": "```c\n" + "/*" * 20000,
}


class Markdown(PageTest):
    def check(self, file, streaming):
        cases = json.loads((HERE / file).read_text())
        results = self.browser.run(RENDER, cases, streaming)
        for (name, source, expected), result in zip(cases, results, strict=True):
            with self.subTest(name, source=source):
                self.assertEqual(expected, result)

    def test_whole(self):
        self.check("markdown_cases.json", False)

    def test_streaming(self):
        self.check("streaming_cases.json", True)

    def test_streamed_equals_whole(self):
        generator = random.Random(6)
        sources = [sample()] + [source for _, source, _ in json.loads((HERE / "markdown_cases.json").read_text())]
        for source in sources:
            for _ in range(3):
                cuts = sorted(generator.sample(range(len(source) + 1), min(len(source), 200)))
                streamed, whole, broken = self.browser.run(STREAM, source, cuts)
                self.assertEqual(whole, streamed, source)
                self.assertEqual(0, broken, f"what stood above changed: {source!r}")

    def test_links_lead_out_safely(self):
        rels = self.browser.run("""return import('/markdown.js').then(({ MarkdownView }) => {
            const host = document.createElement('div');
            new MarkdownView(host).update('[a](http://b) <http://c> http://d');
            return [...host.querySelectorAll('a')].map((a) => [a.rel, a.target]);
        })""")
        self.assertEqual([["noopener noreferrer nofollow", "_blank"]] * 3, rels)

    def test_hostile_input_ends(self):
        for name, source in HOSTILE.items():
            for streaming in (False, True):
                with self.subTest(name, streaming=streaming):
                    depth = self.browser.run("""return import('/markdown.js').then(({ MarkdownView }) => {
                        const host = document.createElement('div');
                        new MarkdownView(host).update(arguments[0], arguments[1]);
                        const depth = (of) => 1 + Math.max(0, ...[...of.children].slice(0, 100).map(depth));
                        return depth(host);
                    })""", source, streaming)
                    self.assertLess(depth, 64)

    def test_nothing_hostile_runs(self):
        self.browser.run("window.hit = () => { window.wasHit = true; }")
        hostile = "<img src=x onerror=hit()> <script>hit()</script> <svg onload=hit()> [a](javascript:hit())"
        self.ask("<b onclick=hit()>me</b>", Answer(hostile, "\n\n```<script>hit()</script>\nx\n```"))
        self.assertIsNone(self.browser.run("return window.wasHit"))
        self.assertEqual(0, self.count("#messages :is(img, script, svg:not(.icon), b)"))


if __name__ == "__main__":
    unittest.main()
