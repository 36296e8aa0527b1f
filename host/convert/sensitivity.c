#include "host/convert/sensitivity.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "host/base/json_out.h"
#include "host/base/mapfile.h"
#include "host/base/outfile.h"
#include "host/model/model_json.h"

/* Measured on the demo model (tools/demo_model, calibration.txt, all paths), where values below 1e-4 are taken for
 * 1e-4: they are of small matrices, whose bytes cost next to nothing, and a trained model of full size may need them
 * more than a toy does. A head apart from the embedding counts like both. */
static const pl_sensitivity typical = {
    .model = "demo.gguf",
    .text = "calibration.txt",
    .value =
        {
            [PL_ROLE_Q] = {0.021, 0.011, 0.014},
            [PL_ROLE_K] = {0.013, 0.031, 0.031},
            [PL_ROLE_V] = {0.0057, 0.027, 0.027},
            [PL_ROLE_O] = {0.0049, 0.0058, 0.0098},
            [PL_ROLE_GATE] = {0.00074, 0.00045, 0.0049},
            [PL_ROLE_UP] = {0.0001, 0.00033, 0.0022},
            [PL_ROLE_DOWN] = {0.0016, 0.0007, 0.0021},
            [PL_ROLE_LAUREL_LEFT] = {0.0001, 0.0001, 0.0001},
            [PL_ROLE_LAUREL_RIGHT] = {0.0001, 0.0001, 0.0001},
            [PL_ROLE_PLE_GATE] = {0.0001, 0.0001, 0.00044},
            [PL_ROLE_PLE_PROJ] = {0.0001, 0.00028, 0.00059},
            [PL_ROLE_EMBED] = {0.27},
            [PL_ROLE_HEAD] = {0.27},
            [PL_ROLE_PLE_TABLE] = {0.00052},
            [PL_ROLE_PLE_MODEL_PROJ] = {0.0001},
            [PL_ROLE_ALTUP_PROJ] = {0.0001},
            [PL_ROLE_ALTUP_UNEMBED] = {0.0033},
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
                       pl_field_kind(value));
    *out = json_number_value(value);
    if (!(*out >= 0 && *out <= 1e30))
        return pl_fail(err, PL_ERR_FORMAT, "%s: roles.%s[%d] is %g, expected 0 to 1e30", where, label, i, *out);
    return PL_OK;
}

static pl_status read_role(const json_t *roles, pl_role role, const char *where, pl_sensitivity *out, pl_error *err)
{
    const char *label = pl_weight_table[role].label;
    const json_t *list = pl_field_get(roles, label);
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
    PL_TRY(pl_field_text(root, key, where, &text, err));
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
    PL_TRY(pl_field_parse(json, n, where, &root, err));
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
    pl_json_key(json, "model");
    pl_json_string(json, s->model);
    pl_json_key(json, "text");
    pl_json_string(json, s->text);
    pl_json_key(json, "roles");
    pl_json_begin_object(json);
    for (int role = 0; role < PL_ROLES; role++) {
        int n = pl_sensitivity_values((pl_role)role);
        if (n == 0)
            continue;
        pl_json_key(json, pl_weight_table[role].label);
        pl_json_begin_array(json);
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
    pl_status status = pl_json_flush(&json, path, err);
    if (status == PL_OK)
        return pl_outfile_commit(&out, err);
    pl_outfile_abort(&out);
    return status;
}
