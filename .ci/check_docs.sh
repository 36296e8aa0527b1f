#!/usr/bin/env bash
# Links in the documents that point into the repository lead somewhere: file and heading.
set -u
cd "$(dirname "$0")/.."

# The anchors of a document, made from its headings as GitHub does.
anchors() {
    sed -nE '/^```/,/^```/!s/^#+ +//p' "$1" | tr 'A-Z' 'a-z' | sed -E 's/[^a-z0-9 _-]//g; s/ /-/g'
}

failed=0
for page in $(find . -name '*.md' -not -path './build/*' -not -path './.git/*' | sort); do
    while IFS= read -r link; do
        case $link in http://* | https://* | mailto:*) continue ;; esac
        file=${link%%#*}
        target=$page
        [ -n "$file" ] && target=$(dirname "$page")/$file
        if [ ! -e "$target" ]; then
            echo "$page: $link: no such file"
            failed=1
        elif [ "$link" != "$file" ] && ! anchors "$target" | grep -qxF -e "${link#*#}"; then
            echo "$page: $link: no such heading"
            failed=1
        fi
    done < <(sed '/^```/,/^```/d' "$page" | grep -oE '\]\([^) ]+' | cut -c3-)
done
exit $failed
