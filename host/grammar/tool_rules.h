/* What an answer may be when functions can be called, to rules. Gemma 3 is told to write a call as
 *
 *     {"name": function name, "parameters": dictionary of argument name and its value}
 *
 * and nothing else beside it (https://ai.google.dev/gemma/docs/capabilities/function-calling); several as an array of
 * these. A model may put either between lines ```json and ```.
 *
 * The text is JSON:  {"tools": [{"name": "f", "parameters": SCHEMA}, ...],   parameters may be missing: {}
 *                     "choice": "auto" | "required" | {"name": "f"},         missing: "auto"
 *                     "parallel": true,                                      several calls; missing: false
 *                     "answer": SCHEMA}                                      what an answer is that is no call
 * With "auto" the answer is a call when it begins with "{" or "[", or with ```json and one of these, and text otherwise.
 * Where "answer" says what it is otherwise, it is that, even where it begins as a call does.
 * Text does not begin with what a reader could take for a call: blanks and ``` (with or without json) before a bracket.
 * "strict": false in a tool leaves its arguments any object; without a "strict" so does a schema outside the subset. A function that is named is called once. */
#ifndef PL_GRAMMAR_TOOL_RULES_H
#define PL_GRAMMAR_TOOL_RULES_H

#include "host/grammar/rules.h"

pl_status pl_tool_rules_compile(const char *text, size_t n, pl_rules **out, pl_error *err);

#endif
