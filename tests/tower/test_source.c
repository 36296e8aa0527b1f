/* Text model and towers in one GGUF file: names, keys, and ids from the vocabulary's pieces. */
#include "host/tower/source.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/gguf_builder.h"

#define WIDTH 8        /* of the towers' rows */
#define TEXT_HIDDEN 32 /* of gguf_builder_tiny() */

static const char *const pieces[TINY_VOCAB] = {"<pad>",
                                               "<eos>",
                                               "<bos>",
                                               "<unk>",
                                               "a",
                                               "b",
                                               "<start_of_image>",
                                               "<start_of_audio>",
                                               "c",
                                               "d",
                                               "e",
                                               "<end_of_image>",
                                               "<image_soft_token>",
                                               "<end_of_audio>",
                                               "<audio_soft_token>",
                                               "f"};

typedef struct one_file {
    scratch dir;
    gguf_builder b;
    pl_checkpoint *checkpoint;
    pl_tower_source *source;
} one_file;

static void add_towers(gguf_builder *b)
{
    gguf_builder_text(b, "clip.vision.projector_type", "gemma3nv");
    gguf_builder_u32(b, "clip.vision.image_size", 96);
    gguf_builder_u32(b, "clip.vision.patch_size", 6);
    gguf_builder_u32(b, "clip.vision.embedding_length", WIDTH);
    gguf_builder_text(b, "clip.audio.projector_type", "gemma3na");
    gguf_builder_u32(b, "clip.audio.embedding_length", WIDTH);
    gguf_builder_u32(b, "clip.audio.attention.head_count", 2);
    gguf_builder_u32(b, "clip.audio.block_count", 3);
    gguf_builder_u32(b, "pleiad.audio.rows", 20);
    gguf_builder_tensor(b, "v.blk.0.0.conv_pwl.weight", PL_F32, 2, 4, 6, 1);
    gguf_builder_tensor(b, "mm.input_projection.weight", PL_F32, 2, WIDTH, TEXT_HIDDEN, 1);
    gguf_builder_tensor(b, "mm.embedding.weight", PL_F32, 2, WIDTH, 2, 1);
    gguf_builder_tensor(b, "a.conv1d.1.weight", PL_F32, 3, 3, 3, 4);
    gguf_builder_tensor(b, "a.blk.2.conv_pw1.weight", PL_F32, 2, WIDTH, 2 * WIDTH, 1);
    gguf_builder_tensor(b, "a.blk.2.per_dim_scale", PL_F32, 1, 4, 1, 1);
    gguf_builder_tensor(b, "a.blk.0.conv_dw.weight", PL_F32, 3, 7, 1, WIDTH);
    gguf_builder_tensor(b, "mm.a.input_projection.weight", PL_F32, 2, WIDTH, TEXT_HIDDEN, 1);
    gguf_builder_tensor(b, "mm.a.embedding.weight", PL_F32, 2, WIDTH, 3, 1);
}

static one_file one_file_make(void)
{
    one_file f = {0};
    scratch_open(&f.dir);
    gguf_builder_tiny(&f.b);
    gguf_builder_texts(&f.b, "tokenizer.ggml.tokens", pieces, TINY_VOCAB);
    add_towers(&f.b);
    return f;
}

static pl_status one_file_open(one_file *f, pl_error *err)
{
    gguf_builder_place(&f->b);
    cr_assert_eq(pl_checkpoint_open(gguf_builder_write(&f->b, &f->dir, "one.gguf"), &f->checkpoint, err), PL_OK, "%s",
                 err->message);
    return pl_tower_source_open(f->checkpoint, NULL, &f->source, err);
}

static void one_file_close(one_file *f)
{
    pl_tower_source_close(f->source);
    pl_checkpoint_close(f->checkpoint);
    gguf_builder_free(&f->b);
    scratch_close(&f->dir);
}

static void expect_tensor(const one_file *f, const char *name, int64_t rows, int64_t cols)
{
    pl_tensor t;
    pl_error err;
    cr_assert_eq(pl_tower_source_matrix(f->source, name, rows, cols, &t, &err), PL_OK, "%s", err.message);
}

Test(tower_source, one_file_holds_text_and_towers)
{
    one_file f = one_file_make();
    pl_error err;
    cr_assert_eq(one_file_open(&f, &err), PL_OK, "%s", err.message);
    const pl_vision_config *vision = pl_tower_source_vision(f.source);
    cr_assert(vision && vision->hidden == WIDTH && vision->side == 96 && vision->grid == 4);
    cr_assert(vision->vocab == 2 && vision->first_id == 11);
    const pl_audio_config *audio = pl_tower_source_audio(f.source);
    cr_assert(audio && audio->hidden == WIDTH && audio->heads == 2 && audio->layers == 3 && audio->rows == 20);
    cr_assert(audio->vocab == 3 && audio->first_id == 13 && audio->kernel == 7 && audio->channels[1] == 4);
    pl_media_tokens want = {6, 12, 11, 7, 14, 13};
    cr_assert_arr_eq(pl_tower_source_tokens(f.source), &want, sizeof want);
    expect_tensor(&f, "vision_tower.timm_model.blocks.0.0.conv_pwl.weight", 6, 4);
    expect_tensor(&f, "audio_tower.conformer.2.lconv1d.linear_start.weight", 2 * WIDTH, WIDTH);
    expect_tensor(&f, "audio_tower.conformer.2.attention.attn.per_dim_scale", 4, 1);
    expect_tensor(&f, "audio_tower.subsample_conv_projection.conv_1.conv.weight", 4, 9);
    cr_assert_eq(pl_tower_source_vision_bytes(f.source), (24 + WIDTH * TEXT_HIDDEN + WIDTH * 2) * sizeof(float));
    cr_assert_null(pl_tower_source_find(f.source, "token_embd.weight"));
    one_file_close(&f);
}

Test(tower_source, a_text_model_has_no_towers)
{
    one_file f = {0};
    pl_error err;
    scratch_open(&f.dir);
    gguf_builder_tiny(&f.b);
    cr_assert_eq(one_file_open(&f, &err), PL_OK, "%s", err.message);
    cr_assert_null(pl_tower_source_vision(f.source));
    cr_assert_null(pl_tower_source_audio(f.source));
    cr_assert_eq(pl_tower_source_vision_bytes(f.source), 0);
    cr_assert_eq(pl_tower_source_tokens(f.source)->image, -1);
    one_file_close(&f);
}

static void expect_refused(one_file *f, pl_status expected, const char *const *words)
{
    pl_error err;
    expect_failure(one_file_open(f, &err), expected, &err, words);
    one_file_close(f);
}

Test(tower_source, bad_keys_are_named)
{
    one_file f = one_file_make();
    gguf_builder_u32(&f.b, "clip.vision.patch_size", 8);
    expect_refused(&f, PL_ERR_FORMAT, WORDS("one.gguf", "clip.vision.image_size", "12 rows"));
    f = one_file_make();
    gguf_builder_text(&f.b, "clip.vision.projector_type", "gemma3");
    expect_refused(&f, PL_ERR_UNSUPPORTED, WORDS("one.gguf", "clip.vision.projector_type", "gemma3nv"));
    f = one_file_make();
    gguf_builder_u32(&f.b, "clip.audio.attention.head_count", 3);
    expect_refused(&f, PL_ERR_FORMAT, WORDS("one.gguf", "3 heads"));
    f = one_file_make();
    gguf_builder_u32(&f.b, "clip.vision.image_size", 100);
    gguf_builder_u32(&f.b, "clip.vision.patch_size", 25);
    expect_refused(&f, PL_ERR_UNSUPPORTED, WORDS("one.gguf", "100 pixels"));
}

Test(tower_source, ids_that_are_missing_or_too_many_are_told)
{
    static const char *without[TINY_VOCAB];
    one_file f = one_file_make();
    memcpy(without, pieces, sizeof pieces);
    without[12] = "g";
    gguf_builder_texts(&f.b, "tokenizer.ggml.tokens", without, TINY_VOCAB);
    expect_refused(&f, PL_ERR_FORMAT, WORDS("one.gguf", "lacks the ids", "images"));
    f = one_file_make();
    gguf_builder_reshape(gguf_builder_find(&f.b, "mm.a.embedding.weight"), 2, WIDTH, 4, 1);
    expect_refused(&f, PL_ERR_FORMAT, WORDS("one.gguf", "4 ids for sound from 13 on", "16"));
}

static pl_status open_again(void *user, pl_error *err)
{
    const one_file *f = user;
    pl_tower_source *source = NULL;
    PL_TRY(pl_tower_source_open(f->checkpoint, NULL, &source, err));
    pl_tower_source_close(source);
    return PL_OK;
}

Test(tower_source, no_memory)
{
    one_file f = one_file_make();
    pl_error err;
    cr_assert_eq(one_file_open(&f, &err), PL_OK);
    cr_assert_geq(fail_alloc_each(open_again, &f), 3);
    one_file_close(&f);
}
