#include "host/convert/sensitivity.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "host/base/json_out.h"
#include "host/base/mapfile.h"
#include "host/base/outfile.h"
#include "host/model/model_json.h"

/* The square roots of what was measured on the demo model (tools/demo_model, calibration.txt, all paths), 1e-4 at the
 * least: halfway between that toy's differences, which span four orders of magnitude, and none at all. In order, not in
 * size, a trained model of full size may be expected to agree. A head apart from the embedding counts like both. */
static const pl_sensitivity typical = {
    .model = "demo.gguf",
    .text = "calibration.txt",
    .value =
        {
            [PL_ROLE_Q] = {0.14, 0.11, 0.12},
            [PL_ROLE_K] = {0.12, 0.17, 0.17},
            [PL_ROLE_V] = {0.076, 0.17, 0.17},
            [PL_ROLE_O] = {0.07, 0.076, 0.099},
            [PL_ROLE_GATE] = {0.027, 0.021, 0.07},
            [PL_ROLE_UP] = {0.01, 0.018, 0.047},
            [PL_ROLE_DOWN] = {0.04, 0.026, 0.046},
            [PL_ROLE_LAUREL_LEFT] = {0.01, 0.01, 0.01},
            [PL_ROLE_LAUREL_RIGHT] = {0.01, 0.01, 0.01},
            [PL_ROLE_PLE_GATE] = {0.01, 0.01, 0.021},
            [PL_ROLE_PLE_PROJ] = {0.01, 0.017, 0.024},
            [PL_ROLE_EMBED] = {0.52},
            [PL_ROLE_HEAD] = {0.52},
            [PL_ROLE_PLE_TABLE] = {0.023},
            [PL_ROLE_PLE_MODEL_PROJ] = {0.01},
            [PL_ROLE_ALTUP_PROJ] = {0.01},
            [PL_ROLE_ALTUP_UNEMBED] = {0.058},
        },
};

const pl_sensitivity *pl_sensitivity_default(void)
{
    return &typical;
}

int pl_third_of(const pl_config *config, int layer)
{
    return layer < 0 ? 0 : PL_THIRDS * layer / config->n_layers;
}

int pl_sensitivity_values(pl_role role)
{
    if (role >= PL_ROLES || pl_weight_table[role].kind == PL_WEIGHT_VECTOR)
        return 0;
    return pl_role_in_layer(role) ? PL_THIRDS : 1;
}

/* ---- reading ------------------------------------------------------------------------------------ */

static pl_status read_value(const json_t *list, int i, const char *label, const char *where, double *out, pl_error *err)
{
    const json_t *value = json_array_get(list, (size_t)i);
    *out = NAN;
    if (json_is_null(value))
        return PL_OK;
    if (!json_is_number(value))
        return pl_fail(err, PL_ERR_FORMAT, "%s: roles.%s[%d] is %s, expected a number or null", where, label, i,
                       pl_member_kind(value));
    *out = json_number_value(value);
    if (!(*out >= 0 && *out <= 1e30))
        return pl_fail(err, PL_ERR_FORMAT, "%s: roles.%s[%d] is %g, expected 0 to 1e30", where, label, i, *out);
    return PL_OK;
}

static pl_status read_role(const json_t *roles, pl_role role, const char *where, pl_sensitivity *out, pl_error *err)
{
    const char *label = pl_weight_table[role].label;
    const json_t *list = pl_member_get(roles, label);
    int n = pl_sensitivity_values(role);
    for (int i = 0; i < PL_THIRDS; i++)
        out->value[role][i] = NAN;
    if (!list && (n == 0 || role == PL_ROLE_HEAD))
        return PL_OK;
    if (!list)
        return pl_fail(err, PL_ERR_FORMAT, "%s: roles.%s is missing", where, label);
    if (n == 0)
        return pl_fail(err, PL_ERR_FORMAT, "%s: roles.%s: vectors are never quantised", where, label);
    if (!json_is_array(list) || json_array_size(list) != (size_t)n)
        return pl_fail(err, PL_ERR_FORMAT, "%s: roles.%s is not a list of %d numbers", where, label, n);
    for (int i = 0; i < n; i++)
        PL_TRY(read_value(list, i, label, where, &out->value[role][i], err));
    return PL_OK;
}

/* A misspelt role would count as not measured. */
static pl_status check_labels(json_t *roles, const char *where, pl_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach(roles, key, value)
    {
        int role = 0;
        while (role < PL_ROLES && strcmp(pl_weight_table[role].label, key) != 0)
            role++;
        if (role == PL_ROLES)
            return pl_fail(err, PL_ERR_FORMAT, "%s: roles.%s: there is no such part of a model", where, key);
    }
    return PL_OK;
}

static pl_status read_name(const json_t *root, const char *key, const char *where, char *out, pl_error *err)
{
    const char *text = "";
    PL_TRY(pl_member_text(root, key, where, &text, err));
    snprintf(out, PL_SENSITIVITY_NAME_BYTES, "%s", text);
    return PL_OK;
}

static pl_status read_root(const json_t *root, const char *where, pl_sensitivity *out, pl_error *err)
{
    json_t *roles = json_object_get(root, "roles");
    PL_TRY(read_name(root, "model", where, out->model, err));
    PL_TRY(read_name(root, "text", where, out->text, err));
    if (!json_is_object(roles))
        return pl_fail(err, PL_ERR_FORMAT, "%s: has no object 'roles': not a file of sensitivities", where);
    PL_TRY(check_labels(roles, where, err));
    for (int role = 0; role < PL_ROLES; role++)
        PL_TRY(read_role(roles, (pl_role)role, where, out, err));
    return PL_OK;
}

pl_status pl_sensitivity_parse(const char *json, size_t n, const char *where, pl_sensitivity *out, pl_error *err)
{
    pl_sensitivity made = {.model = ""};
    json_t *root = NULL;
    PL_TRY(pl_member_parse(json, n, where, &root, err));
    pl_status status = read_root(root, where, &made, err);
    json_decref(root);
    if (status == PL_OK)
        *out = made;
    return status;
}

pl_status pl_sensitivity_read(const char *path, pl_sensitivity *out, pl_error *err)
{
    pl_mapfile file;
    PL_TRY(pl_mapfile_open(path, &file, err));
    pl_status status = pl_sensitivity_parse(file.data ? (const char *)file.data : "", file.size, path, out, err);
    pl_mapfile_close(&file);
    return status;
}

/* ---- writing ------------------------------------------------------------------------------------ */

static void put(pl_json *json, const pl_sensitivity *s)
{
    pl_json_begin_object(json);
    pl_json_put_string(json, "model", s->model);
    pl_json_put_string(json, "text", s->text);
    pl_json_key_object(json, "roles");
    for (int role = 0; role < PL_ROLES; role++) {
        int n = pl_sensitivity_values((pl_role)role);
        if (n == 0)
            continue;
        pl_json_key_array(json, pl_weight_table[role].label);
        for (int i = 0; i < n; i++)
            pl_json_double(json, s->value[role][i]);
        pl_json_end_array(json);
    }
    pl_json_end_object(json);
    pl_json_end_object(json);
    pl_json_newline(json);
}

pl_status pl_sensitivity_write(const pl_sensitivity *sensitivity, const char *path, pl_error *err)
{
    pl_outfile out;
    PL_TRY(pl_outfile_open(path, &out, err));
    pl_json json = pl_json_to_file(out.file);
    put(&json, sensitivity);
    return pl_outfile_commit(&out, err);
}
