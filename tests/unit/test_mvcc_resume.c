/* A snapshot that needs several streams, and several lives of its receiver. */
#include "tests/unit/store_history.h"

#define CHUNK 256
#define ENTRIES 900

struct carrier {
    struct store from, to;
    struct mvcc_snapshot *snapshot;
    struct mvcc_snapshot_id id;
    struct mvcc_restore *restore;
    struct mvcc_snapshot_at at; /* as the receiver says */
    struct buf chunk;           /* the last one read */
    bool last, answered;
    enum errc code;
    size_t chunks;
};

static void on_chunk(void *ctx, enum errc code, struct bytes chunk, bool last)
{
    struct carrier *c = ctx;
    c->code = code;
    c->last = last;
    c->chunk.n = 0;
    if (chunk.n)
        buf_append(&c->chunk, chunk.p, chunk.n);
}

static void on_code(void *ctx, enum errc code)
{
    struct carrier *c = ctx;
    c->answered = true;
    c->code = code;
}

static void on_resumed(void *ctx, enum errc code, struct mvcc_snapshot_at at)
{
    on_code(ctx, code);
    ((struct carrier *)ctx)->at = at;
}

static void on_finished(void *ctx, enum errc code, uint64_t index, uint64_t term)
{
    (void)index, (void)term;
    on_code(ctx, code);
}

static void open_both(struct carrier *c)
{
    *c = (struct carrier){0};
    store_make(&c->from);
    store_make(&c->to);
    c->from.config.snapshot_chunk_bytes = CHUNK;
    store_open(&c->from);
    store_open(&c->to);
    for (int i = 0; i < ENTRIES; i++)
        history_apply(&c->from, 5);
    worker_drain(&c->from.worker);
    c->snapshot = mvcc_snapshot_begin(c->from.m, &c->id.index, &c->id.term);
    c->id.maker = 7;
    c->id.serial = 11;
}

static void close_both(struct carrier *c)
{
    mvcc_snapshot_end(c->snapshot);
    mvcc_restore_abort(c->restore);
    worker_drain(&c->to.worker);
    buf_free(&c->chunk);
    store_close(&c->from);
    store_close(&c->to);
    store_remove(&c->from);
    store_remove(&c->to);
}

/* Begins a stream: asks the receiver where it is. */
static enum errc ask(struct carrier *c)
{
    if (!c->restore)
        c->restore = mvcc_restore_begin(c->to.m, &c->id);
    mvcc_restore_resume(c->restore, on_resumed, c);
    worker_drain(&c->to.worker);
    return c->code;
}

static void read_chunk(struct carrier *c)
{
    mvcc_snapshot_next(c->snapshot, on_chunk, c);
    worker_drain(&c->from.worker);
    assert_int_equal(c->code, ERR_OK);
}

static enum errc store_chunk(struct carrier *c)
{
    mvcc_restore_chunk(c->restore, buf_bytes(&c->chunk), on_code, c);
    worker_drain(&c->to.worker);
    c->chunks++;
    return c->code;
}

/* One stream of at most `max` chunks. */
static void carry(struct carrier *c, size_t max)
{
    assert_int_equal(ask(c), ERR_OK);
    assert_int_equal(mvcc_snapshot_seek(c->snapshot, &c->at), ERR_OK);
    c->last = false;
    while (max-- > 0 && !c->last) {
        read_chunk(c);
        assert_int_equal(store_chunk(c), ERR_OK);
    }
}

static void crash_receiver(struct carrier *c)
{
    mvcc_abandon(c->to.m);
    c->to.m = NULL;
    worker_reset(&c->to.worker);
    mvcc_restore_abort(c->restore);
    c->restore = NULL;
    store_open(&c->to);
}

static void finish_and_compare(struct carrier *c)
{
    struct mvcc_snapshot_at whole = mvcc_snapshot_at(c->snapshot);
    mvcc_restore_finish(c->restore, &whole, on_finished, c);
    worker_drain(&c->to.worker);
    assert_int_equal(c->code, ERR_OK);
    c->answered = false;
    mvcc_restore_install(c->restore, on_code, c);
    c->restore = NULL;
    worker_drain(&c->to.worker);
    assert_true(c->answered);
    assert_int_equal(c->code, ERR_OK);
    char *a = history_dump(&c->from), *b = history_dump(&c->to);
    assert_string_equal(a, b);
    free(a);
    /* Nothing of the transfer is left in it. */
    store_close(&c->to);
    store_open(&c->to);
    a = history_dump(&c->to);
    assert_string_equal(a, b);
    assert_false(mvcc_has_partial(c->to.m));
    free(a);
    free(b);
}

static void goes_on_stream_by_stream(void **state)
{
    (void)state;
    struct carrier c;
    open_both(&c);
    size_t streams = 0;
    for (; !c.last; streams++) {
        carry(&c, 3);
        for (int i = 0; i < 5; i++) /* the sender's store goes on */
            history_apply(&c.from, 5);
    }
    assert_true(streams > 5);
    assert_int_equal((c.chunks + 2) / 3, streams); /* none was sent twice */
    struct mvcc_snapshot_at whole = mvcc_snapshot_at(c.snapshot);
    mvcc_restore_finish(c.restore, &whole, on_finished, &c);
    worker_drain(&c.to.worker);
    assert_int_equal(c.code, ERR_OK);
    close_both(&c);
}

/* Its process ends after each number of chunks: it never has less than what it has answered for. */
static void goes_on_in_another_life(void **state)
{
    (void)state;
    struct carrier c;
    open_both(&c);
    uint64_t had = 0;
    while (!c.last) {
        carry(&c, 2);
        assert_true(c.at.offset >= had);
        had = mvcc_snapshot_at(c.snapshot).offset;
        crash_receiver(&c);
        assert_true(mvcc_has_partial(c.to.m));
    }
    assert_int_equal(ask(&c), ERR_OK);
    assert_int_equal(c.at.offset, had); /* all of it, and nothing but the end has to be said */
    assert_int_equal(mvcc_snapshot_seek(c.snapshot, &c.at), ERR_OK);
    read_chunk(&c);
    assert_true(c.last);
    assert_int_equal(c.chunk.n, 0);
    finish_and_compare(&c);
    close_both(&c);
}

/* Between the end of the reception and that of the installation too. */
static void is_whole_in_another_life(void **state)
{
    (void)state;
    struct carrier c;
    open_both(&c);
    carry(&c, 100000);
    struct mvcc_snapshot_at whole = mvcc_snapshot_at(c.snapshot);
    mvcc_restore_finish(c.restore, &whole, on_finished, &c);
    worker_drain(&c.to.worker);
    assert_int_equal(c.code, ERR_OK);
    crash_receiver(&c);
    assert_int_equal(ask(&c), ERR_OK);
    assert_int_equal(c.at.offset, whole.offset);
    assert_int_equal(c.at.sum, whole.sum);
    assert_int_equal(mvcc_snapshot_seek(c.snapshot, &c.at), ERR_OK);
    finish_and_compare(&c);
    close_both(&c);
}

static void another_one_begins_anew(void **state)
{
    (void)state;
    struct carrier c;
    for (int field = 0; field < 4; field++) {
        open_both(&c);
        carry(&c, 4);
        crash_receiver(&c);
        struct mvcc_snapshot_id id = c.id;
        *(field == 0   ? &c.id.index
          : field == 1 ? &c.id.term
          : field == 2 ? &c.id.maker
                       : &c.id.serial) += 1;
        assert_int_equal(ask(&c), ERR_OK);
        assert_int_equal(c.at.offset, 0);
        assert_int_equal(c.at.sum, 0);
        c.id = id;
        carry(&c, 100000);
        finish_and_compare(&c);
        close_both(&c);
    }
}

/* A bit in each page of what was kept: it is gone on with only if that is nowhere in it. */
static void harm(const char *dir, size_t page)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/store-1.db", dir);
    struct error err;
    struct disk *disk = disk_posix();
    struct disk_file *f;
    uint8_t byte;
    size_t n;
    assert_int_equal(disk->open(disk, path, DISK_WRITE, &f, &err), ERR_OK);
    disk->read(disk, f, page * 4096 + 2000, &byte, 1, &n, &err);
    byte ^= 4;
    disk->write(disk, f, page * 4096 + 2000, &byte, 1, &err);
    disk->close(disk, f);
}

static void a_damaged_part_is_of_no_use(void **state)
{
    (void)state;
    size_t found = 0;
    for (size_t page = 3; page < 12; page++) {
        struct carrier c;
        open_both(&c);
        carry(&c, 40);
        store_close(&c.to);
        mvcc_restore_abort(c.restore);
        c.restore = NULL;
        /* The WAL covers the file's pages: without it, the file ends before all of it. */
        char path[128];
        snprintf(path, sizeof(path), "%s/store-1.db-wal", c.to.dir);
        if (page % 2)
            unlink(path);
        harm(c.to.dir, page);
        store_open(&c.to);
        assert_int_equal(ask(&c), ERR_OK);
        found += c.at.offset == 0;
        carry(&c, 100000);
        finish_and_compare(&c);
        assert_int_equal(c.to.failures, 0);
        close_both(&c);
    }
    assert_true(found > 0);
}

static void the_sender_knows_its_places(void **state)
{
    (void)state;
    struct carrier c;
    open_both(&c);
    struct mvcc_snapshot_at at[3];
    struct buf chunks[3] = {0};
    for (int i = 0; i < 3; i++) {
        at[i] = mvcc_snapshot_at(c.snapshot);
        read_chunk(&c);
        buf_append(&chunks[i], c.chunk.p, c.chunk.n);
    }
    for (int i = 2; i >= 0; i--) { /* the very same bytes */
        assert_int_equal(mvcc_snapshot_seek(c.snapshot, &at[i]), ERR_OK);
        read_chunk(&c);
        assert_int_equal(c.chunk.n, chunks[i].n);
        assert_memory_equal(c.chunk.p, chunks[i].p, chunks[i].n);
        buf_free(&chunks[i]);
    }
    struct mvcc_snapshot_at wrong[] = {{at[1].offset + 1, at[1].sum},
                                       {at[1].offset, at[1].sum + 1},
                                       {at[2].offset, at[1].sum},
                                       {1u << 30, 0}};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        assert_int_equal(mvcc_snapshot_seek(c.snapshot, &wrong[i]), ERR_INVALID);
    close_both(&c);
}

static void the_whole_has_a_sum(void **state)
{
    (void)state;
    for (int wrong = 0; wrong < 2; wrong++) {
        struct carrier c;
        open_both(&c);
        carry(&c, 100000);
        struct mvcc_snapshot_at whole = mvcc_snapshot_at(c.snapshot);
        whole.offset += wrong == 0;
        whole.sum += wrong == 1;
        mvcc_restore_finish(c.restore, &whole, on_finished, &c);
        worker_drain(&c.to.worker);
        assert_int_equal(c.code, ERR_CORRUPT);
        assert_int_equal(c.to.failures, 0); /* it says nothing of this store */
        close_both(&c);
    }
}

static void a_chunk_out_of_its_place_is_refused(void **state)
{
    (void)state;
    struct carrier c;
    open_both(&c);
    carry(&c, 2);
    read_chunk(&c); /* lost */
    read_chunk(&c);
    assert_int_equal(store_chunk(&c), ERR_CORRUPT);
    assert_int_equal(ask(&c), ERR_CORRUPT); /* it is spoilt */
    close_both(&c);
}

static void count_name(void *ctx, const char *name)
{
    *(unsigned *)ctx += strncmp(name, "store", 5) == 0 && strstr(name, ".db") != NULL &&
                        strstr(name, ".db-") == NULL;
}

static unsigned databases(struct store *s)
{
    unsigned n = 0;
    disk_posix()->list(disk_posix(), s->dir, count_name, &n, NULL);
    return n;
}

/* Never more than one beside the store, and none when nobody wants it. */
static void leaves_nothing_behind(void **state)
{
    (void)state;
    struct carrier c;
    open_both(&c);
    for (int life = 0; life < 5; life++) {
        carry(&c, 3);
        assert_int_equal(databases(&c.to), 2);
        crash_receiver(&c);
        assert_int_equal(databases(&c.to), 2);
        c.id.serial++;
    }
    mvcc_drop_partial(c.to.m);
    worker_drain(&c.to.worker);
    assert_int_equal(databases(&c.to), 1);
    assert_false(mvcc_has_partial(c.to.m));
    carry(&c, 3);
    mvcc_restore_abort(c.restore);
    c.restore = NULL;
    worker_drain(&c.to.worker);
    assert_int_equal(databases(&c.to), 1);
    close_both(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_on_stream_by_stream),
        cmocka_unit_test(goes_on_in_another_life),
        cmocka_unit_test(is_whole_in_another_life),
        cmocka_unit_test(another_one_begins_anew),
        cmocka_unit_test(a_damaged_part_is_of_no_use),
        cmocka_unit_test(the_sender_knows_its_places),
        cmocka_unit_test(the_whole_has_a_sum),
        cmocka_unit_test(a_chunk_out_of_its_place_is_refused),
        cmocka_unit_test(leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
