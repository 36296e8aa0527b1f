/* The file of sensitivities. */
#include <math.h>

#include "host/convert/sensitivity.h"
#include "tests/unit/scratch.h"

static scratch s;
static pl_sensitivity got;
static pl_error err;

static void setup(void)
{
    scratch_open(&s);
}

static void teardown(void)
{
    scratch_close(&s);
}

TestSuite(sensitivity, .init = setup, .fini = teardown);

static pl_sensitivity sample(void)
{
    pl_sensitivity made = {.model = ""};
    for (pl_role role = 0; role < PL_ROLES; role++)
        for (int i = 0; i < PL_THIRDS; i++)
            made.value[role][i] = 1;
    snprintf(made.model, sizeof made.model, "demo \"model\"");
    snprintf(made.text, sizeof made.text, "wiki.txt");
    made.value[PL_ROLE_DOWN][0] = 0.1;
    made.value[PL_ROLE_DOWN][2] = 12345.678901234567;
    made.value[PL_ROLE_V][2] = NAN;
    made.value[PL_ROLE_EMBED][0] = 0;
    return made;
}

/* The sample's file with a piece of its text replaced. */
static pl_status with(const char *from, const char *to)
{
    char path[1024], changed[8192];
    size_t n;
    pl_sensitivity made = sample();
    snprintf(path, sizeof path, "%s", scratch_path(&s, "s.json"));
    cr_assert_eq(pl_sensitivity_write(&made, path, &err), PL_OK);
    char *text = read_file(path, &n), *at = strstr(text, from);
    cr_assert_not_null(at, "no %s in %s", from, text);
    snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    free(text);
    return pl_sensitivity_parse(changed, strlen(changed), "s.json", &got, &err);
}

Test(sensitivity, comes_back_as_it_was)
{
    pl_sensitivity made = sample();
    const char *path = scratch_path(&s, "s.json");
    cr_assert_eq(pl_sensitivity_write(&made, path, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_sensitivity_read(path, &got, &err), PL_OK, "%s", err.message);
    cr_expect_str_eq(got.model, made.model);
    cr_expect_str_eq(got.text, made.text);
    for (int role = 0; role < PL_ROLES; role++)
        for (int i = 0; i < pl_sensitivity_values((pl_role)role); i++) {
            double a = got.value[role][i], b = made.value[role][i];
            cr_expect(a == b || (isnan(a) && isnan(b)), "%s[%d]", pl_weight_table[role].label, i);
        }
}

Test(sensitivity, every_matrix_has_a_default)
{
    for (int role = 0; role < PL_ROLES; role++)
        for (int i = 0; i < pl_sensitivity_values((pl_role)role); i++)
            cr_expect_gt(pl_sensitivity_default()->value[role][i], 0, "%s[%d]", pl_weight_table[role].label, i);
    cr_expect_eq(pl_sensitivity_values(PL_ROLE_DOWN), 3);
    cr_expect_eq(pl_sensitivity_values(PL_ROLE_PLE_TABLE), 1);
    cr_expect_eq(pl_sensitivity_values(PL_ROLE_ATTN_NORM), 0);
    cr_expect_eq(pl_sensitivity_values(PL_ROLES), 0);
}

Test(sensitivity, thirds_cover_the_depth)
{
    pl_config config = {.n_layers = 35};
    cr_expect_eq(pl_third_of(&config, -1), 0);
    cr_expect_eq(pl_third_of(&config, 0), 0);
    cr_expect_eq(pl_third_of(&config, 11), 0);
    cr_expect_eq(pl_third_of(&config, 12), 1);
    cr_expect_eq(pl_third_of(&config, 34), 2);
    config.n_layers = 1;
    cr_expect_eq(pl_third_of(&config, 0), 0);
}

Test(sensitivity, parts_may_be_absent_where_a_model_lacks_them)
{
    cr_expect_eq(with("\"head\":[1],", ""), PL_OK, "%s", err.message);
    cr_expect(isnan(got.value[PL_ROLE_HEAD][0]));
    cr_expect_eq(with("\"model\":\"demo \\\"model\\\"\",", ""), PL_OK, "%s", err.message);
    cr_expect_str_eq(got.model, "");
}

Test(sensitivity, wrong_files_are_refused)
{
    const struct {
        const char *from, *to;
        const char *const *words;
    } wrong[] = {
        {"{", "", WORDS("s.json", "line 1")},
        {"\"q\":[", "\"qq\":[", WORDS("roles.qq", "no such part")},
        {"\"q\":[1,1,1],", "", WORDS("roles.q is missing")},
        {"\"q\":[1,1,1]", "\"q\":[1,1]", WORDS("roles.q", "3 numbers")},
        {"\"q\":[1,1,1]", "\"q\":1", WORDS("roles.q", "3 numbers")},
        {"\"q\":[1,1,1]", "\"q\":[1,\"2\",1]", WORDS("roles.q[1] is a string")},
        {"\"q\":[1,1,1]", "\"q\":[1,1,-1]", WORDS("roles.q[2] is -1")},
        {"\"q\":[1,1,1]", "\"q\":[1,1,1e99]", WORDS("roles.q[2] is 1e+99")},
        {"\"q\":[1,1,1]", "\"q\":[1,1,1],\"attn_norm\":[1,1,1]", WORDS("roles.attn_norm", "never quantised")},
        {"\"roles\"", "\"rolls\"", WORDS("s.json", "'roles'")},
        {"\"text\":\"wiki.txt\"", "\"text\":7", WORDS("text is an integer")},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        memset(&got, 7, sizeof got);
        expect_failure(with(wrong[i].from, wrong[i].to), PL_ERR_FORMAT, &err, wrong[i].words);
        cr_expect_eq(got.model[0], 7, "written to in spite of an error");
    }
    expect_failure(pl_sensitivity_read(scratch_path(&s, "nothing"), &got, &err), PL_ERR_IO, &err, WORDS("nothing"));
    expect_failure(pl_sensitivity_parse("", 0, "empty", &got, &err), PL_ERR_FORMAT, &err, WORDS("empty"));
}
