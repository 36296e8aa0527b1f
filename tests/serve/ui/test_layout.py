"""How the page is laid out, that nothing jumps, and that everybody can use it."""
import threading
import unittest

from mock_server import Answer
from page_test import IDLE, LAST, READY, PageTest, pieces_of, sample

# Text whose contrast with what is behind it is less than AA asks for: [ratio, text].
CONTRAST = """
const parse = (color) => {
    const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number);
    return color.startsWith('color(') ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
};
const over = (top, below) => top.slice(0, 3).map((part, i) => part * top[3] + below[i] * (1 - top[3])).concat(1);
const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement)
        layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
};
const light = (color) => {
    const linear = (part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = color.map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const poor = [];
let seen = 0;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const style = getComputedStyle(element);
    if (!walker.currentNode.data.trim() || !element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true })
        || element.closest('.hidden-visually, option, :disabled, script'))
        continue;
    seen++;
    const below = behind(element);
    const [one, other] = [light(over(parse(style.color), below)), light(below)];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5))
        poor.push([ratio.toFixed(2), walker.currentNode.data.slice(0, 40), style.color]);
}
return [seen, poor];
"""

WIDE = """
const width = document.documentElement.clientWidth;
const scroll = document.querySelector('#scroll');
const inside = (element) => { /* of a box that scrolls by itself */
    for (let at = element.parentElement; at; at = at.parentElement)
        if (getComputedStyle(at).overflowX !== 'visible' && at !== scroll && at !== document.body)
            return true;
};
return [document.documentElement.scrollWidth, scroll.scrollWidth - scroll.clientWidth,
    [...document.querySelectorAll('main *, dialog[open] *')].filter((element) =>
        element.checkVisibility() && element.getBoundingClientRect().right > width + 0.5 && !inside(element))
        .map((element) => element.outerHTML.slice(0, 80))];
"""

CONTROLS = {"button", "link", "textbox", "searchbox", "combobox", "slider", "spinbutton", "radio", "checkbox", "meter",
            "region", "dialog", "navigation", "article"}


class Layout(PageTest):
    def test_nothing_shifts_while_streaming(self):
        self.browser.run("""window.shifts = [];
            new PerformanceObserver((list) => window.shifts.push(...list.getEntries().map((entry) =>
                [entry.value, entry.sources.map((source) => source.node?.outerHTML?.slice(0, 60))])))
                .observe({ type: 'layout-shift', buffered: true });""")
        self.ask("Stream", Answer(*pieces_of(sample()), every=0.004))
        self.ask("Again", Answer(*pieces_of(sample())[:80], every=0.01))
        self.browser.run("return new Promise((done) => setTimeout(done, 300))")
        shifts = self.browser.run("return window.shifts")
        self.assertLess(sum(value for value, _ in shifts), 0.05, shifts)

    def test_follows_only_at_the_end(self):
        lines = ["line\n\n"] * 60
        gate = threading.Event()
        self.ask("Fill", Answer(*lines))
        gap = ("const s = document.querySelector('#scroll'); return s.scrollHeight - s.scrollTop - s.clientHeight")
        self.assertLess(self.browser.run(gap), 2)
        self.mock.answers = [Answer("start\n\n", *lines, gate=gate)]
        self.send("More")
        self.browser.wait(f"{LAST}.querySelector('.body').innerText === 'start'")
        self.browser.run("document.querySelector('#scroll').scrollTop = 200")
        self.browser.wait("document.querySelector('#to-end').classList.contains('shown')")
        gate.set()
        self.browser.wait(IDLE)
        self.assertEqual(200, self.browser.run("return Math.round(document.querySelector('#scroll').scrollTop)"))
        self.browser.media(prefers_reduced_motion="reduce")
        self.browser.click("#to-end")
        self.browser.wait(f"(() => {{ {gap} < 2 }})()")
        self.browser.wait("!document.querySelector('#to-end').classList.contains('shown')")
        self.ask("Follow", Answer(*lines))
        self.assertLess(self.browser.run(gap), 2)

    def test_what_is_selected_stays_selected(self):
        gate = threading.Event()
        self.mock.answers = [Answer("Some words", " and more\n\nnext", gate=gate)]
        self.send("Go")
        self.browser.wait(f"{LAST}?.querySelector('p')")
        self.browser.run(f"getSelection().setBaseAndExtent({LAST}.querySelector('p').firstChild, 0, "
                         f"{LAST}.querySelector('p').firstChild, 4)")
        gate.set()
        self.browser.wait(IDLE)
        self.assertEqual("Some", self.browser.run("return getSelection().toString()"))

    def test_phone(self):
        self.ask("A question with a" + "very" * 20 + "longword", Answer(sample()))
        self.ask("Busy", Answer(status=429, error={"message": "Busy " * 20}, headers={"Retry-After": "90"}))
        self.complaints = "Failed to load"
        for width in (360, 320):
            self.browser.resize(width, 700, touch=True)
            with self.subTest(width):
                self.assertEqual([width, 0, []], self.browser.run(WIDE))
                self.browser.run("document.querySelector('#scroll').scrollTop = 0")
                self.assertEqual([width, 0, []], self.browser.run(WIDE))
        self.browser.resize(360, 700, touch=True)
        self.browser.run("document.querySelector('#open-side').click()")
        self.browser.click("#open-settings")
        self.assertEqual([360, 0, []], self.browser.run(WIDE))
        self.browser.press("Escape")
        self.browser.wait("!document.querySelector('#side').checkVisibility({ checkVisibilityCSS: true })")
        self.browser.click("#open-side")
        self.assertTrue(self.browser.run("return document.querySelector('main').inert"))
        self.browser.press("Escape")
        self.assertEqual([False, True, "open-side"], self.browser.run("""const side = document.querySelector('#side');
            return [document.querySelector('main').inert, side.inert, document.activeElement.id];"""))

    def test_enter_is_a_newline_on_a_phone(self):
        self.browser.resize(360, 700, touch=True)
        self.browser.open(self.mock.address + "?phone")
        self.browser.wait(READY)
        if not self.browser.run("return matchMedia('(hover: none) and (pointer: coarse)').matches"):
            self.skipTest("this browser does not pretend to be a phone")
        self.browser.type("#prompt", "a")
        self.browser.press("Enter")
        self.assertEqual("a\n", self.browser.run("return document.querySelector('#prompt').value"))
        self.browser.click("#send")
        self.browser.wait(f"{LAST} && {IDLE}")


class Access(PageTest):
    def check_names(self):
        self.browser.devtools("Accessibility.enable")
        nodes = self.browser.devtools("Accessibility.getFullAXTree")["nodes"]
        shown = [node for node in nodes if not node["ignored"]]
        roles = [node["role"]["value"] for node in shown]
        nameless = [node["role"]["value"] for node in shown
                    if node["role"]["value"] in CONTROLS and not node.get("name", {}).get("value")]
        self.assertEqual([], nameless)
        return roles

    def check_contrast(self):
        for scheme in ("light", "dark"):
            self.browser.media(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
            seen, poor = self.browser.run(CONTRAST)
            self.assertGreater(seen, 10)
            self.assertEqual([], poor, scheme)

    def test_chat(self):
        self.complaints = "Failed to load"
        self.ask("Show all", Answer(sample()))
        self.ask("And fail", Answer(status=500, error={"message": "It failed."}))
        roles = self.check_names()
        landmarks = {"main", "navigation", "complementary", "article", "heading", "table", "status"}
        self.assertLessEqual(landmarks, set(roles))
        self.assertEqual(1, self.count("h1"))
        self.check_contrast()

    def test_empty_page(self):
        self.check_names()
        self.check_contrast()

    def test_settings(self):
        self.browser.click("#open-settings")
        self.check_names()
        self.check_contrast()
        self.browser.press("Escape")
        self.browser.click("#open-system")
        self.check_names()
        self.check_contrast()
        self.browser.press("Escape")
        self.browser.run("document.querySelector('#key').showModal()")
        self.check_names()
        self.check_contrast()

    def test_skip_link_and_focus_rings(self):
        self.ask("One")
        self.browser.run("""document.body.tabIndex = -1;
            document.body.focus();
            document.body.removeAttribute('tabindex');""")
        self.browser.press("Tab")
        self.assertEqual("Skip to the message field", self.browser.run("return document.activeElement.innerText"))
        self.browser.press("Enter")
        self.browser.run("document.activeElement.blur()")
        places = set()
        for _ in range(40):
            self.browser.press("Tab")
            place, ring = self.browser.run("""const at = document.activeElement, style = getComputedStyle(at);
                return [at.id || at.getAttribute('aria-label') || at.localName,
                    style.outlineStyle !== 'none' || at.id === 'prompt' || at === document.body];""")
            self.assertTrue(ring, place)
            places.add(place)
        known = {"new-chat", "search", "open-settings", "scroll", "prompt", "path", "send", "Copy"}
        self.assertLessEqual(known, places)

    def test_finished_answers_are_announced(self):
        gate = threading.Event()
        self.mock.answers = [Answer("One", " two", gate=gate)]
        self.send("Go")
        self.browser.wait(f"{LAST}?.querySelector('p')")
        self.assertEqual("", self.browser.run("return document.querySelector('#announce').textContent"))
        gate.set()
        self.browser.wait("document.querySelector('#announce').textContent === 'Answer: One two'")


if __name__ == "__main__":
    unittest.main()
