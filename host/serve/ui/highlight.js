/* Syntax colouring of a few families of languages: comments, strings, numbers, keywords, functions. One pass of one
 * regular expression, whose parts never match the same text twice: linear time. */

const MAX_CHARS = 60000; /* longer code stays plain */

const words = (text) => new Set(text.split(' '));

const C_WORDS =
    'auto break case catch char class const constexpr continue default delete do double else enum extern ' +
    'false final float for friend goto if inline int long namespace new nullptr NULL operator override ' +
    'private protected public return short signed sizeof static struct switch template this throw true try ' +
    'typedef typename union unsigned using virtual void volatile while bool size_t abstract extends ' +
    'implements import instanceof interface package super null boolean byte var string internal readonly ' +
    'foreach in is as async await get set where yield select from let';
const JS_WORDS =
    'async await break case catch class const continue debugger default delete do else export extends false ' +
    'finally for from function get if import in instanceof let new null of return set static super switch ' +
    'this throw true try typeof undefined var void while with yield type interface enum implements private ' +
    'public readonly as any number string boolean';
const PYTHON_WORDS =
    'and as assert async await break case class continue def del elif else except False finally for from ' +
    'global if import in is lambda match None nonlocal not or pass raise return self True try while with ' +
    'yield';
const SHELL_WORDS =
    'case do done elif else esac exit export fi for function if in local read return select set then unset ' +
    'until while cd echo sudo';
const RUST_WORDS =
    'as async await break const continue crate dyn else enum extern false fn for if impl in let loop match ' +
    'mod move mut pub ref return self Self static struct super trait true type unsafe use where while func ' +
    'package import var range defer go chan map interface nil switch case default select fallthrough int ' +
    'string bool error u8 i32 u32 i64 u64 usize f32 f64';
const SQL_WORDS =
    'add all alter and as asc begin between by case check column commit constraint create cross default ' +
    'delete desc distinct drop else end exists false foreign from full group having if in index inner insert ' +
    'into is join key left like limit not null offset on or order outer primary references right rollback ' +
    'select set table then true union unique update values view when where with';
const RUBY_WORDS =
    'alias and begin break case class def do else elsif end ensure false for if in module next nil not or ' +
    'redo require rescue retry return self super then true undef unless until when while yield local function ' +
    'repeat';

const SLASHES = String.raw`\/\/[^\n]*|\/\*[\s\S]*?(?:\*\/|$)`;
const HASH = String.raw`#[^\n]*`;
const QUOTED = String.raw`"(?:\\[\s\S]|[^"\\\n])*"?|'(?:\\[\s\S]|[^'\\\n])*'?`;
const TICKED = '`(?:\\\\[\\s\\S]|[^`\\\\])*`?';
const TRIPLE = String.raw`"""[\s\S]*?(?:"""|$)|'''[\s\S]*?(?:'''|$)`;
const NUMBER = String.raw`\b\d[\w.]*`;
const WORD = String.raw`[A-Za-z_$][\w$]*`;

const family = (comment, string, keywords, ignoreCase = false) => ({
    pattern: new RegExp(`(?<c>${comment})|(?<s>${string})|(?<n>${NUMBER})|(?<w>${WORD})`, 'g'),
    keywords: words(keywords),
    ignoreCase,
});

const families = {
    c: family(`${SLASHES}|^[ \\t]*#[^\\n]*`, QUOTED, C_WORDS),
    js: family(SLASHES, `${QUOTED}|${TICKED}`, JS_WORDS),
    python: family(HASH, `${TRIPLE}|${QUOTED}`, PYTHON_WORDS),
    shell: family(String.raw`(?<![\w$])#[^\n]*`, QUOTED, SHELL_WORDS),
    rust: family(SLASHES, `"(?:\\\\[\\s\\S]|[^"\\\\])*"?|'\\\\?.'|${TICKED}`, RUST_WORDS),
    sql: family(String.raw`--[^\n]*|\/\*[\s\S]*?(?:\*\/|$)`, QUOTED, SQL_WORDS, true),
    ruby: family(`${HASH}|--[^\\n]*`, QUOTED, RUBY_WORDS),
    data: family(HASH, QUOTED, 'true false null yes no on off'),
    css: family(String.raw`\/\*[\s\S]*?(?:\*\/|$)`, QUOTED, 'important media import supports keyframes var calc'),
};

const names = {
    c: 'c h cpp c++ cc cxx hpp cuda cu java kotlin kt csharp cs c# swift scala dart php objc glsl arduino',
    js: 'js javascript jsx ts typescript tsx mjs json5',
    python: 'py python python3',
    shell: 'sh bash zsh shell console dockerfile makefile make',
    rust: 'rs rust go golang zig',
    sql: 'sql sqlite mysql postgresql',
    ruby: 'rb ruby lua elixir',
    data: 'json yaml yml toml ini conf',
    css: 'css scss less',
};

const byName = new Map(Object.entries(names).flatMap(
    ([key, list]) => list.split(' ').map((name) => [name, families[key]])));

const MARKUP = /(?<c><!--[\s\S]*?(?:-->|$))|(?<k><\/?[A-Za-z][\w:-]*|\/?>)|(?<s>"[^"\n]*"|'[^'\n]*')|(?<n>&#?\w+;)/g;

function* pieces(code, pattern, classOf) {
    let end = 0;
    for (const match of code.matchAll(pattern)) {
        const kind = classOf(match);
        if (kind) {
            if (match.index > end) {
                yield ['', code.slice(end, match.index)];
            }
            yield [kind, match[0]];
            end = match.index + match[0].length;
        }
    }
    if (end < code.length) {
        yield ['', code.slice(end)];
    }
}

const groupOf = (match) => Object.keys(match.groups).find((key) => match.groups[key] !== undefined);

function wordClass(rules, match) {
    const word = rules.ignoreCase ? match[0].toLowerCase() : match[0];
    if (rules.keywords.has(word)) {
        return 'k';
    }
    return match.input[match.index + match[0].length] === '(' ? 'f' : '';
}

const DIFF = /(?<s>^\+[^\n]*)|(?<d>^-[^\n]*)|(?<c>^@@[^\n]*)/gm;

/* [class or '', text] for all of the code. */
export function highlight(code, language) {
    const name = language.toLowerCase();
    if (code.length > MAX_CHARS) {
        return [['', code]];
    }
    if (/^(?:html|xml|svg|vue)$/.test(name)) {
        return [...pieces(code, MARKUP, groupOf)];
    }
    if (/^(?:diff|patch)$/.test(name)) {
        return [...pieces(code, DIFF, groupOf)];
    }
    const rules = byName.get(name);
    if (!rules) {
        return [['', code]];
    }
    return [...pieces(code, rules.pattern, (match) => {
        const group = groupOf(match);
        return group === 'w' ? wordClass(rules, match) : group;
    })];
}
