"""What the page does: sending, streaming, branches, history, settings, errors."""
import base64
import json
import threading
import unittest

from mock_server import PAGE, Answer
from page_test import IDLE, LAST, READY, PageTest, pieces_of, sample

STORE = "const { Store } = await import('/store.js'); const store = await Store.open();"


class Talking(PageTest):
    def test_loads_small_and_alone(self):
        self.assertLess(sum(file.stat().st_size for file in PAGE.iterdir()), 165_000)
        loaded = self.browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        self.assertTrue(loaded)
        self.assertEqual([], [name for name in loaded if not name.startswith(self.mock.address)])

    def test_sends_and_shows(self):
        self.assertEqual("Paris.", self.ask("What is the **capital** of France?", Answer("Par", "is", ".")))
        body = self.mock.requests[0]
        self.assertEqual([{"role": "user", "content": "What is the **capital** of France?"}], body["messages"])
        self.assertEqual((True, {"include_usage": True}, "auto", "gemma-3n-mock"),
                         (body["stream"], body["stream_options"], body["path"], body["model"]))
        self.assertEqual({"messages", "stream", "stream_options", "path", "model"}, set(body), "presets: the server's")
        self.assertEqual("e2b (load) · 42.5 tokens/s · 3 tokens", self.note())
        self.assertEqual("20 tokens of prompt, read in 20 ms, waited 1 ms",
                         self.browser.run("return document.querySelector('.assistant .note').title"))
        self.assertEqual("What is the **capital** of France?", self.browser.text("#title"))
        self.assertEqual("23 / 2,048", self.browser.text("#meter .count"))
        self.ask("And of Spain?", Answer("Madrid."))
        self.assertEqual([("user", "What is the **capital** of France?"), ("assistant", "Paris."),
                          ("user", "And of Spain?")], self.sent())
        self.assertIn("Madrid.", self.browser.run("return document.querySelector('#announce').textContent"))

    def test_streams(self):
        gate = threading.Event()
        self.mock.answers = [Answer("One **two", " three** four", gate=gate)]
        self.send("Count")
        self.browser.wait(f"{LAST}?.querySelector('strong')?.textContent === 'two'")
        self.assertEqual("true", self.browser.run(f"return {LAST}.getAttribute('aria-busy')"))
        gate.set()
        self.browser.wait(IDLE)
        self.assertEqual("One two three four", self.last())

    def test_shows_speed_and_waiting(self):
        self.mock.answers = [Answer(*["word "] * 1000, every=0.02)]
        self.send("Go on")
        self.browser.wait(f"/tokens.s · \\d+ tokens/.test({LAST}?.querySelector('.note').innerText)")
        self.assertFalse(self.browser.run(f"return {IDLE}"))
        self.browser.press("Escape")

    def test_stops(self):
        for stop in (lambda: self.browser.click("#stop"), lambda: self.browser.press("Escape")):
            self.mock.left = 0
            self.mock.answers = [Answer("Begun", " never", gate=threading.Event())]
            self.send("Go")
            self.browser.wait(f"{LAST}?.querySelector('.body').innerText === 'Begun'")
            stop()
            self.browser.wait(IDLE)
            self.assertEqual("stopped", self.note())
            self.wait_for(lambda: self.mock.left == 1)
        self.ask("Next")
        self.assertIn(("assistant", "Begun"), self.sent())

    def test_one_at_a_time(self):
        gate = threading.Event()
        self.mock.answers = [Answer("a", "b", gate=gate)]
        self.send("First")
        self.browser.wait(LAST)
        self.send("Second")
        self.assertEqual("Second", self.browser.run("return document.querySelector('#prompt').value"))
        gate.set()
        self.browser.wait(IDLE)
        self.assertEqual(1, len(self.mock.requests))

    def test_answers_in_two_chats(self):
        gate = threading.Event()
        self.mock.answers = [Answer("slow", " end", gate=gate), Answer("quick")]
        self.send("First")
        self.browser.wait(f"{LAST}?.querySelector('.body').innerText === 'slow'")
        self.browser.click("#new-chat")
        self.assertEqual("quick", self.ask("Second"))
        gate.set()
        self.browser.wait("!document.querySelector('#history .running')")
        self.browser.run("document.querySelector('#history [title=First]').click()")
        self.browser.wait(f"{LAST}?.querySelector('.body').innerText === 'slow end'")

    def test_interrupted_by_leaving(self):
        self.mock.answers = [Answer("Begun", " never", gate=threading.Event())]
        self.send("Go")
        self.browser.wait(f"{LAST}?.querySelector('.body').innerText === 'Begun'")
        self.browser.run("location.reload()")
        self.browser.wait(f"{READY} && {LAST}?.querySelector('.problem')")
        self.assertEqual(["Go", "Begun"], self.messages())
        self.browser.click(".problem button")
        self.browser.wait(f"{LAST}.querySelector('.body').innerText === 'Fine.'")


class Branches(PageTest):
    def test_again(self):
        self.ask("Say", Answer("first"))
        self.mock.answers = [Answer("second")]
        self.browser.click(".assistant [aria-label='Answer again']")
        self.browser.wait(f"{LAST}?.querySelector('.body').innerText === 'second' && {IDLE}")
        self.assertEqual([("user", "Say")], self.sent())
        self.assertIn("2 / 2", self.browser.text(".assistant footer"))
        self.browser.click("[aria-label='Previous version']")
        self.assertEqual(["Say", "first"], self.messages())
        self.ask("More")
        self.assertEqual([("user", "Say"), ("assistant", "first"), ("user", "More")], self.sent())
        self.mock.answers = [Answer("third")]
        self.browser.click(".assistant [aria-label='Answer again']")
        self.browser.wait(f"{LAST}?.querySelector('.body').innerText === 'third' && {IDLE}")
        self.assertEqual(["Say", "third"], self.messages())

    def test_edit_makes_a_branch(self):
        self.ask("One", Answer("1"))
        self.ask("Two", Answer("2"))
        self.browser.click(".user:nth-child(3) [aria-label=Edit]")
        self.browser.run("document.querySelector('.edit textarea').value = 'Three'")
        self.mock.answers = [Answer("3")]
        self.browser.click(".edit [type=submit]")
        self.browser.wait(f"{LAST}?.querySelector('.body').innerText === '3' && {IDLE}")
        self.assertEqual(["One", "1", "Three", "3"], self.messages())
        self.assertEqual([("user", "One"), ("assistant", "1"), ("user", "Three")], self.sent())
        self.browser.click("[aria-label='Previous version']")
        self.assertEqual(["One", "1", "Two", "2"], self.messages())
        self.browser.run("location.reload()")
        self.browser.wait(f"{READY} && {LAST}")
        self.assertEqual(["One", "1", "Two", "2"], self.messages())

    def test_up_edits_and_escape_leaves(self):
        self.ask("One")
        self.browser.press("Up")
        self.assertEqual("One", self.browser.run("return document.activeElement.value"))
        self.browser.press("Escape")
        self.assertEqual(["One", "Fine."], self.messages())
        self.assertEqual("prompt", self.browser.run("return document.activeElement.id"))

    def test_delete_and_undo(self):
        self.ask("One", Answer("1"))
        self.ask("Two", Answer("2"))
        self.browser.click(".user:nth-child(3) [aria-label^=Delete]")
        self.assertEqual(["One", "1"], self.messages())
        self.browser.click("#toast button")
        self.assertEqual(["One", "1", "Two", "2"], self.messages())
        self.browser.click(".assistant:nth-child(4) [aria-label^=Delete]")
        self.browser.run("location.reload()")
        self.browser.wait(f"{READY} && {LAST}")
        self.assertEqual(["One", "1", "Two"], self.messages())
        self.ask("Three")
        self.assertEqual([("user", "One"), ("assistant", "1"), ("user", "Two\n\nThree")], self.sent())

    def test_copies(self):
        self.ask("Code", Answer("```c\nint a;\n```"))
        self.browser.run("""window.copies = [];
            navigator.clipboard.writeText = async (text) => { window.copies.push(text); };""")
        self.browser.click(".copy-code")
        self.browser.click(".assistant [aria-label=Copy]")
        self.browser.wait("window.copies.length === 2")
        self.assertEqual(["int a;", "```c\nint a;\n```"], self.browser.run("return window.copies"))
        self.assertEqual("Copied", self.browser.text(".copy-code"))


ATTACH = """
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [640, 400];
    const context = canvas.getContext('2d');
    const colours = context.createLinearGradient(0, 0, 640, 400);
    ['#e4572e', '#f3a712', '#3550b5'].forEach((colour, i) => colours.addColorStop(i / 2, colour));
    context.fillStyle = colours;
    context.fillRect(0, 0, 640, 400);
    const image = new File([await new Promise((done) => canvas.toBlob(done))], 'sky.png', { type: 'image/png' });
    const bytes = new DataView(new ArrayBuffer(44 + 3200));
    [0x52494646, 0, 0x57415645, 0x666d7420].forEach((word, i) => bytes.setUint32(4 * i, word));
    bytes.setUint32(4, 36 + 3200, true);
    bytes.setUint32(16, 16, true);
    [[20, 1], [22, 1], [32, 2], [34, 16]].forEach(([at, v]) => bytes.setUint16(at, v, true));
    bytes.setUint32(24, 16000, true);
    bytes.setUint32(28, 32000, true);
    bytes.setUint32(36, 0x64617461);
    bytes.setUint32(40, 3200, true);
    const sound = new File([bytes], 'word.wav', { type: 'audio/wav' });
    const other = new File(['text'], 'notes.txt', { type: 'text/plain' });
    const carried = new DataTransfer();
    [image, sound, other].slice(...arguments[1]).forEach((file) => carried.items.add(file));
    const target = document.querySelector('#prompt');
    const events = {
        drop: () => new DragEvent('drop', { dataTransfer: carried, bubbles: true, cancelable: true }),
        paste: () => new ClipboardEvent('paste', { clipboardData: carried, bubbles: true, cancelable: true }),
    };
    if (arguments[0] === 'pick') {
        document.querySelector('#attach-file').files = carried.files;
        document.querySelector('#attach-file').dispatchEvent(new Event('change'));
    } else {
        target.dispatchEvent(events[arguments[0]]());
    }
"""


class Showing(PageTest):
    def attach(self, how, first, last):
        self.browser.run(f"return (async function() {{ {ATTACH} }}).apply(null, arguments)", how, [first, last])

    def attached(self, n):
        self.browser.wait(f"document.querySelectorAll('#attachments .media').length === {n}")

    def test_sends_what_is_attached(self):
        for i, how in enumerate(("drop", "paste", "pick")):
            self.attach(how, 0, 2)
            self.attached(2)
            self.ask("What is this?", Answer("A sky."))
            self.attached(0)
            parts = self.mock.requests[-1]["messages"][-1]["content"]
            self.assertEqual(["image_url", "input_audio", "text"], [part["type"] for part in parts], how)
            self.assertTrue(parts[0]["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo"))
            self.assertEqual("wav", parts[1]["input_audio"]["format"])
            self.assertTrue(parts[1]["input_audio"]["data"].startswith("UklGR"))
            self.assertEqual("What is this?", parts[2]["text"])
            self.assertEqual(i + 1, self.count(".message.user .shown img"))

    def test_sends_an_image_alone_and_takes_one_away(self):
        self.attach("drop", 0, 2)
        self.attached(2)
        self.browser.click("#attachments .audio button")
        self.attached(1)
        self.browser.click("#send")
        self.browser.wait(f"{LAST} && {IDLE}")
        self.assertEqual(["image_url"], [part["type"] for part in self.mock.requests[-1]["messages"][-1]["content"]])
        self.assertEqual("sky.png", self.browser.text("#title"))

    def test_records(self):
        self.browser.click("#microphone")
        self.browser.wait("document.querySelector('#microphone.recording')")
        self.browser.run("return new Promise((done) => setTimeout(done, 300))")
        self.browser.click("#microphone")
        self.attached(1)
        self.ask("What was said?", Answer("A beep."))
        part = self.mock.requests[-1]["messages"][-1]["content"][0]
        self.assertEqual(("input_audio", "wav"), (part["type"], part["input_audio"]["format"]))
        wav = base64.b64decode(part["input_audio"]["data"])
        self.assertEqual((b"RIFF", b"WAVEfmt "), (wav[:4], wav[8:16]))
        self.assertEqual(16000, int.from_bytes(wav[24:28], "little"))
        self.assertGreater(len(wav), 44 + 1000)

    def test_keeps_small_pictures_only(self):
        self.attach("drop", 0, 2)
        self.attached(2)
        self.ask("What is this?", Answer("A sky."))
        kept = self.browser.run(f"{STORE} const rows = await store.messages.all(); "
                                "return rows.find(({ role }) => role === 'user').media")
        self.assertEqual([["kind", "name", "thumb"], ["kind", "name"]], [sorted(one) for one in kept])
        self.assertLess(len(kept[0]["thumb"]), 40_000)
        self.browser.run("location.reload()")
        self.browser.wait("document.querySelector('.shown img')?.naturalWidth === 256")
        self.ask("And now?", Answer("Still."))
        parts = self.mock.requests[-1]["messages"][0]["content"]
        self.assertTrue(parts[0]["image_url"]["url"].startswith("data:image/jpeg;base64,"))
        self.assertEqual(["image_url", "text", "text"], [part["type"] for part in parts])
        self.assertIn("word.wav", parts[1]["text"])

    def test_refuses_what_it_cannot_take(self):
        self.attach("drop", 2, 3)
        self.browser.wait("/notes.txt/.test(document.querySelector('#toast').innerText)")
        self.attached(0)
        self.mock.modalities = {"vision": True, "audio": False}
        self.load()
        self.browser.wait("document.querySelector('#microphone').hidden")
        self.attach("drop", 1, 2)
        self.browser.wait("/takes images$/.test(document.querySelector('#toast').innerText.trim())")
        self.mock.modalities = {"vision": False, "audio": False}
        self.load()
        self.assertTrue(self.browser.run("return document.querySelector('#attach').hidden"))


class Keeping(PageTest):
    def titles(self):
        return self.browser.run("return [...document.querySelectorAll('#history .open')].map((at) => at.textContent)")

    def test_history(self):
        self.ask("First chat", Answer("about *whales*"))
        self.browser.click("#new-chat")
        self.ask("Second chat", Answer("about ants"))
        self.assertEqual(["Second chat", "First chat"], self.titles())
        self.browser.run("location.reload()")
        self.browser.wait(f"{READY} && {LAST}")
        self.assertEqual(["Second chat", "about ants"], self.messages())
        self.browser.press("Control", "k")
        self.browser.type("#search", "WHALES chat")
        self.browser.wait("document.querySelectorAll('#history .open').length === 1")
        self.browser.press("Enter")
        self.browser.wait("document.querySelector('#title').innerText === 'First chat'")
        self.assertEqual(["First chat", "about whales"], self.messages())

    def test_rename_and_delete(self):
        self.ask("A chat")
        self.browser.run("document.querySelector('#history [aria-label^=Rename]').click()")
        self.browser.type("#history input", "Another name")
        self.browser.press("Enter")
        self.browser.wait("document.querySelector('#title').innerText === 'Another name'")
        self.browser.wait("document.querySelector('#history .open')?.textContent === 'Another name'")
        self.browser.run("document.querySelector('#history [aria-label^=Delete]').click()")
        self.browser.wait("!document.querySelector('#history .open') && !document.querySelector('.message')")
        self.browser.click("#toast button")
        self.browser.wait("document.querySelector('#history .open')?.textContent === 'Another name'")

    def test_what_is_deleted_while_it_comes_stays_away(self):
        gate = threading.Event()
        self.ask("First")
        self.mock.answers = [Answer("Begun", " end", gate=gate)]
        self.send("Second")
        self.browser.wait(f"{LAST}?.querySelector('.body').innerText === 'Begun'")
        self.browser.run(f"{LAST}.querySelector('[aria-label^=Delete]').click()")
        self.browser.wait("!document.querySelector('.live')")
        self.assertEqual(3, self.browser.run(f"{STORE} return (await store.messages.all()).length;"))
        self.mock.answers = [Answer("Begun", " end", gate=gate)]
        self.send("Third")
        self.browser.wait(f"{LAST}?.querySelector('.body').innerText === 'Begun'")
        self.browser.run("document.querySelector('#history [aria-label^=Delete]').click()")
        self.browser.wait("!document.querySelector('.message') && !document.querySelector('#history .open')")
        self.wait_for(lambda: self.mock.left == 2)
        left = self.browser.run(f"{STORE} return [...await store.list(), ...await store.messages.all()];")
        self.assertEqual([], left)

    def test_exports_and_imports(self):
        self.ask("Keep me", Answer("kept"))
        exported = self.browser.run(f"{STORE} return store.exportAll();")
        self.browser.run(f"{STORE} await store.clear();")
        self.assertEqual(1, len(self.browser.run(f"{STORE} return store.importAll(arguments[0]);", exported)))
        self.browser.run("location.reload()")
        self.browser.wait(f"{READY} && {LAST}")
        self.assertEqual(["Keep me", "kept"], self.messages())
        self.assertEqual(["Keep me"], self.titles())

    def test_bad_imports_change_nothing(self):
        self.ask("Keep me")
        chat = {"meta": {"id": "x", "title": "X"}, "messages": [{"id": "a", "role": "user", "text": "t"}]}
        loop = [{"id": "a", "parent": "b", "role": "user"}, {"id": "b", "parent": "a", "role": "user"}]
        whole = {"format": "pleiad-chats", "version": 1}
        for bad in ("", "{", "[]", "null", json.dumps({**whole, "version": 2, "chats": []}), json.dumps(whole),
                    json.dumps({**whole, "chats": [chat, {"meta": {}}]}),
                    json.dumps({**whole, "chats": [chat, {"meta": {"id": "y"}, "messages": loop}]}),
                    json.dumps({**whole, "chats": [{**chat, "messages": chat["messages"] * 2}]}),
                    json.dumps({**whole, "chats": [{**chat, "messages": [{"id": "a", "role": "system"}]}]})):
            with self.subTest(bad):
                refused = self.browser.run(f"{STORE} return store.importAll(arguments[0]).then(() => '', String);", bad)
                self.assertNotEqual("", refused)
        self.assertEqual(1, self.browser.run(f"{STORE} return (await store.list()).length;"))

    def test_import_takes_no_others_messages(self):
        self.ask("Mine", Answer("mine"))
        taken = self.browser.run(f"{STORE} return (await store.messages.all())[0].id;")
        chat = {"meta": {"id": "x", "title": "X"}, "messages": [{"id": taken, "role": "user", "text": "stolen"}]}
        self.browser.run(f"{STORE} await store.importAll(arguments[0]);",
                         json.dumps({"format": "pleiad-chats", "version": 1, "chats": [chat]}))
        self.browser.run("location.reload()")
        self.browser.wait(f"{READY} && {LAST}")
        self.assertEqual(["Mine", "mine"], self.messages())

    def test_long_chat(self):
        self.put_chat(3000)
        self.assertLess(self.count(".message"), 100)
        self.assertEqual("Message 2999", self.messages()[-1])
        top = "document.querySelector('.message').getBoundingClientRect().top"
        self.browser.run("window.anchor = document.querySelector('.message')")
        self.browser.run("document.querySelector('#scroll').scrollTop = 100")
        self.browser.wait("document.querySelector('.message') !== window.anchor")
        moved = self.browser.run("return Math.abs(window.anchor.getBoundingClientRect().top)")
        self.assertLess(moved, 800, "what was seen has left the window")
        self.assertLess(self.browser.run(f"return {top}"), 0)
        self.ask("Still quick?")
        self.assertEqual(3001, len(self.mock.requests[-1]["messages"]))


class Setting(PageTest):
    def choose(self, selector, value):
        self.browser.run("""const select = document.querySelector(arguments[0]);
            select.value = arguments[1];
            select.dispatchEvent(new Event('change'));""", selector, value)

    def fill(self, selector, value):
        self.browser.run("""const box = document.querySelector(arguments[0]);
            box.value = arguments[1];
            box.dispatchEvent(new Event('input'));""", selector, value)

    def test_path_and_wish(self):
        self.assertEqual(["auto", "e4b", "mix", "e2b"],
                         self.browser.run("return [...document.querySelector('#path').options].map((o) => o.value)"))
        self.choose("#wish", "quality")
        self.ask("One")
        self.assertEqual(("auto", "quality"), (self.mock.requests[-1]["path"], self.mock.requests[-1]["quality"]))
        self.choose("#path", "e2b")
        self.ask("Two")
        self.assertEqual("e2b", self.mock.requests[-1]["path"])
        self.assertNotIn("quality", self.mock.requests[-1])
        self.load()
        self.assertEqual("e2b", self.browser.run("return document.querySelector('#path').value"))

    def test_sampling_and_reset(self):
        self.browser.click("#open-settings")
        self.fill("#set-temperature", "0.3")
        self.fill("#set-top_k", "64")
        self.fill("#set-max-tokens", "50")
        self.fill("#set-stop", "END\n\\n\\n")
        self.browser.press("Escape")
        self.ask("One")
        body = self.mock.requests[-1]
        self.assertEqual((0.3, 50, ["END", "\n\n"]), (body["temperature"], body["max_tokens"], body["stop"]))
        self.assertNotIn("top_k", body)
        self.browser.click("#open-settings")
        self.browser.click("#reset-sampling")
        self.browser.press("Escape")
        self.ask("Two")
        self.assertFalse({"temperature", "max_tokens", "stop"} & set(self.mock.requests[-1]))

    def test_instructions(self):
        self.ask("One")
        self.browser.click("#open-system")
        self.browser.type("#system-text", "Be brief.")
        self.browser.click("#system .primary")
        self.ask("Two")
        self.assertEqual(("system", "Be brief."), self.sent()[0])
        self.browser.run("location.reload()")
        self.browser.wait(f"{READY} && {LAST}")
        self.ask("Three")
        self.assertEqual(("system", "Be brief."), self.sent()[0])
        self.browser.click("#new-chat")
        self.ask("Four")
        self.assertEqual([("user", "Four")], self.sent())

    def test_theme(self):
        page = "return getComputedStyle(document.body).backgroundColor"
        self.browser.media(prefers_color_scheme="light")
        light = self.browser.run(page)
        self.browser.media(prefers_color_scheme="dark")
        dark = self.browser.run(page)
        self.assertNotEqual(light, dark)
        self.browser.click("#switch-theme")
        self.assertEqual(light, self.browser.run(page))
        self.load()
        self.assertEqual(light, self.browser.run(page))

    def test_keys(self):
        self.browser.type("#prompt", "a")
        self.browser.press("Shift", "Enter")
        self.browser.type("#prompt", "b")
        self.assertEqual([], self.mock.requests)
        self.browser.press("Enter")
        self.browser.wait(f"{LAST} && {IDLE}")
        self.assertEqual([("user", "a\nb")], self.sent())
        self.browser.press("Control", "k")
        self.assertEqual("search", self.browser.run("return document.activeElement.id"))
        self.browser.press("Enter")
        self.browser.wait("!document.querySelector('.message')")
        self.assertEqual("prompt", self.browser.run("return document.activeElement.id"))


class Trouble(PageTest):
    def setUp(self):
        super().setUp()
        self.complaints = r"Failed to load resource"

    def problem(self):
        return self.browser.wait(f"{LAST}?.querySelector('.problem')?.innerText")

    def test_busy_waits_and_tries_again(self):
        busy = {"message": "The server is busy.", "code": "rate_limit_exceeded"}
        self.mock.answers = [Answer(status=429, error=busy, headers={"Retry-After": "8"}), Answer("Now")]
        self.send("Go")
        self.assertRegex(self.problem(), r"busy\. Trying again in \d s")
        self.browser.wait(f"{LAST}.querySelector('.body').innerText === 'Now'")
        self.assertEqual(0, self.count(".problem"))
        self.mock.answers = [Answer(status=429, error=busy, headers={"Retry-After": "60"}), Answer("Sooner")]
        self.send("Go")
        self.problem()
        self.browser.click(".problem button")
        self.browser.wait(f"{LAST}.querySelector('.body').innerText === 'Sooner'")

    def test_stop_ends_the_waiting(self):
        self.mock.answers = [Answer(status=429, error={"message": "Busy."}, headers={"Retry-After": "8"})]
        self.send("Go")
        self.problem()
        self.browser.press("Escape")
        self.browser.run("return new Promise((done) => setTimeout(done, 8500))")
        self.assertEqual(1, len(self.mock.requests))
        self.assertEqual("Try again", self.browser.text(".problem button"))

    def test_server_errors(self):
        for answer, text, kept in ((Answer(status=500, error={"message": "It failed."}), "It failed.", ""),
                                   (Answer(status=400, error={"message": "No such path."}), "No such path.", ""),
                                   (Answer("Half", breaks=True), "broke off", "Half"),
                                   (Answer("Half", error={"message": "Device lost."}), "Device lost", "Half")):
            with self.subTest(text):
                self.mock.answers = [answer, Answer("Whole")]
                self.send("Go")
                self.assertIn(text, self.problem())
                self.assertEqual(kept, self.last())
                self.browser.click(".problem button")
                self.browser.wait(f"{LAST}.querySelector('.body').innerText === 'Whole' && {IDLE}")
                self.assertEqual(0, self.count(".problem"))

    def test_key(self):
        self.mock.key = "secret"
        self.browser.open(self.mock.address)
        for keep in (False, True):
            self.browser.wait("document.querySelector('#key').open")
            self.browser.type("#key-value", "secret")
            if keep:
                self.browser.click("#key-keep")
            self.browser.click("#key .primary")
            self.browser.wait("document.querySelector('#meter.known')")
            self.assertEqual("Fine.", self.ask("Go"))
            self.assertEqual("secret" if keep else None, self.browser.run("return localStorage.getItem('pleiad.key')"))
            self.browser.run("location.reload()")
        self.browser.wait(f"{READY} && document.querySelector('#meter.known')")

    def test_key_asked_for_while_sending(self):
        self.mock.key = "secret"
        self.send("Go")
        self.browser.wait("document.querySelector('#key').open")
        self.browser.type("#key-value", "secret")
        self.browser.press("Enter")
        self.browser.wait(f"{LAST}.querySelector('.body').innerText === 'Fine.'")

    def test_context_is_full(self):
        for i in range(3):
            self.ask(f"Question {i} " + "x" * 400, Answer("y" * 400, prompt_tokens=500 * (i + 1)))
        full = {"message": "The prompt has 2100 tokens, the context 2048.", "code": "context_length_exceeded"}
        self.mock.answers = [Answer(status=400, error=full), Answer("Fits")]
        self.send("Another")
        self.assertIn("2048", self.problem())
        self.browser.click(".problem button")
        self.browser.wait(f"{LAST}.querySelector('.body').innerText === 'Fits' && {IDLE}")
        self.assertTrue(self.sent()[0][1].startswith("Question 1"), self.sent()[0])
        self.assertEqual("Another", self.sent()[-1][1])
        self.assertIn("no longer sent", self.browser.text(".cut"))
        self.assertEqual(8, len(self.messages()))

    def test_length_is_said(self):
        self.ask("Go", Answer("cut", finish="length"))
        self.assertIn("greatest length", self.problem())

    def test_server_comes_later(self):
        self.browser.devtools("Network.enable")
        self.browser.devtools("Network.setBlockedURLs", urls=["*/props", "*/completions"])
        self.browser.open(self.mock.address + "?")
        self.browser.wait("/does not answer/.test(document.querySelector('#trouble').innerText)")
        self.send("Go")
        self.assertIn("does not answer", self.problem())
        self.browser.devtools("Network.setBlockedURLs", urls=[])
        self.browser.wait("document.querySelector('#meter.known')")
        self.assertEqual("", self.browser.text("#trouble"))
        self.browser.click(".problem button")
        self.browser.wait(f"{LAST}.querySelector('.body').innerText === 'Fine.'")


if __name__ == "__main__":
    unittest.main()
