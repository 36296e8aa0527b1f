/* The public interface in use: asks a model one question and shows the answer as it comes.
 *
 *     example MODEL "QUESTION" */
#include <stdio.h>

#include "host/include/pleiad.h"

static bool show(void *user, const pl_token_event *event)
{
    (void)user;
    fwrite(event->text, 1, event->n_bytes, stdout);
    fflush(stdout);
    return true; /* false would stop the answer */
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL QUESTION\n", argv[0]);
        return 2;
    }
    pl_error err = {.message = ""};
    pl_model *model = NULL;
    pl_engine *engine = NULL;
    pl_session *session = NULL;
    pl_tokens prompt = {.ids = NULL};
    pl_message question = {.role = "user", .content = argv[2]};
    pl_generation params = pl_generation_default();
    params.sampling.temperature = 0;
    params.max_tokens = 256;
    params.on_token = show;

    bool ok = pl_model_open(argv[1], &model, &err) == PL_OK && pl_engine_create(model, NULL, &engine, &err) == PL_OK &&
              pl_session_create(engine, &session, &err) == PL_OK &&
              pl_tokenize_chat(model, &question, 1, true, &prompt, &err) == PL_OK &&
              pl_generate(session, prompt.ids, prompt.n, &params, NULL, &err) == PL_OK;
    if (ok)
        printf("\n");
    else
        fprintf(stderr, "%s\n", err.message);
    pl_tokens_free(&prompt);
    pl_session_free(session);
    pl_engine_free(engine);
    pl_model_close(model);
    return ok ? 0 : 1;
}
