/* Operations on the mount's core over the store of mount_fake.h, as a process would call them: each runs the store
 * until it has its answer. */
#ifndef TEST_MOUNT_CALLS_H
#define TEST_MOUNT_CALLS_H

#include "tests/unit/mount_fake.h"

static const struct caller fake_me = {.pid = 100};
static const struct caller fake_replayer = {.pid = 9, .replay = true};

static void fake_done(void *ctx, const struct core_reply *r)
{
    struct fake *f = ctx;
    assert_false(f->replied);
    f->replied = true;
    f->error = r->error;
    f->reply = *r;
    size_t n = r->data.n < sizeof f->data - 1 ? r->data.n : sizeof f->data - 1;
    if (n)
        memcpy(f->data, r->data.p, n);
    f->data[n] = 0;
}

static inline void fake_begin_op(struct fake *f)
{
    f->replied = false;
}

/* Runs the store until the operation has its answer; its errno. */
static inline int fake_end_op(struct fake *f)
{
    fake_run(f);
    assert_true(f->replied);
    return f->error;
}

#define FAKE_OP(f, call) (fake_begin_op(f), (call), fake_end_op(f))

/* The inode of a path, 0 if there is none (the errno is in f->error). */
static inline uint64_t fake_walk(struct fake *f, const char *path)
{
    uint64_t ino = CORE_ROOT_INO;
    char *copy = xstrdup(path), *rest = copy, *name;
    while (ino && (name = strsep(&rest, "/")))
        ino = FAKE_OP(f, core_lookup(f->core, &fake_me, ino, name, fake_done, f))
                  ? 0
                  : f->reply.st.st_ino;
    free(copy);
    return ino;
}

static inline uint64_t fake_dir_of(struct fake *f, const char *path, const char **ret_name)
{
    const char *slash = strrchr(path, '/');
    *ret_name = slash ? slash + 1 : path;
    if (!slash)
        return CORE_ROOT_INO;
    char *dir = xasprintf("%.*s", (int)(slash - path), path);
    uint64_t ino = fake_walk(f, dir);
    free(dir);
    return ino;
}

/* As open(2): the handle, 0 on failure. */
static inline uint64_t fake_open(struct fake *f, const char *path, int flags)
{
    uint64_t ino = fake_walk(f, path);
    if (ino && !((flags & O_CREAT) && (flags & O_EXCL))) {
        int error = FAKE_OP(f, core_open(f->core, &fake_me, ino, flags, fake_done, f));
        return error ? 0 : f->reply.fh;
    }
    if (ino || !(flags & O_CREAT)) {
        f->error = ino ? EEXIST : f->error;
        return 0;
    }
    const char *name;
    uint64_t dir = fake_dir_of(f, path, &name);
    int error = FAKE_OP(f, core_create(f->core, &fake_me, dir, name, 0644, flags, fake_done, f));
    return error ? 0 : f->reply.fh;
}

static inline int fake_write(struct fake *f, uint64_t fh, uint64_t offset, const char *text)
{
    return FAKE_OP(f, core_write(f->core, &fake_me, fh, offset, bytes_str(text), fake_done, f));
}

static inline int fake_flush(struct fake *f, uint64_t fh)
{
    return FAKE_OP(f, core_flush(f->core, &fake_me, fh, fake_done, f));
}

static inline void fake_close_only(struct fake *f, uint64_t fh)
{
    core_release(f->core, &fake_me, fh);
    fake_run(f);
}

static inline int fake_close(struct fake *f, uint64_t fh)
{
    int error = fake_flush(f, fh);
    fake_close_only(f, fh);
    return error;
}

static inline const char *fake_read(struct fake *f, uint64_t fh, uint64_t offset, size_t n)
{
    if (FAKE_OP(f, core_read(f->core, &fake_me, fh, offset, n, fake_done, f)))
        snprintf(f->data, sizeof f->data, "error %d", f->error);
    return f->data;
}

/* As cat(1). */
static inline const char *fake_cat(struct fake *f, const char *path)
{
    uint64_t fh = fake_open(f, path, O_RDONLY);
    if (!fh) {
        snprintf(f->data, sizeof f->data, "error %d", f->error);
        return f->data;
    }
    fake_read(f, fh, 0, sizeof f->data - 1);
    core_release(f->core, &fake_me, fh);
    return f->data;
}

/* As `printf TEXT > path`. */
static inline int fake_save(struct fake *f, const char *path, const char *text)
{
    uint64_t fh = fake_open(f, path, O_WRONLY | O_CREAT | O_TRUNC);
    if (!fh)
        return f->error;
    int error = fake_write(f, fh, 0, text);
    int closed = fake_close(f, fh);
    return error ? error : closed;
}

static inline int fake_unlink(struct fake *f, const char *path)
{
    const char *name;
    uint64_t dir = fake_dir_of(f, path, &name);
    return FAKE_OP(f, core_unlink(f->core, &fake_me, dir, name, fake_done, f));
}

static inline int fake_rmdir(struct fake *f, const char *path)
{
    const char *name;
    uint64_t dir = fake_dir_of(f, path, &name);
    return FAKE_OP(f, core_rmdir(f->core, &fake_me, dir, name, fake_done, f));
}

static inline int fake_mkdir(struct fake *f, const char *path, uint32_t mode)
{
    const char *name;
    uint64_t dir = fake_dir_of(f, path, &name);
    return FAKE_OP(f, core_mkdir(f->core, &fake_me, dir, name, mode, fake_done, f));
}

static inline int fake_rename(struct fake *f, const char *from, const char *to, unsigned flags)
{
    const char *old, *new;
    uint64_t a = fake_dir_of(f, from, &old), b = fake_dir_of(f, to, &new);
    return FAKE_OP(f, core_rename(f->core, &fake_me, a, old, b, new, flags, fake_done, f));
}

static bool fake_list_add(void *ctx, const char *name, const struct stat *st, uint64_t next_offset)
{
    struct fake *f = ctx;
    (void)next_offset;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return true;
    snprintf(f->names + strlen(f->names), sizeof f->names - strlen(f->names), "%s%s%s",
             f->names[0] ? " " : "", name, S_ISDIR(st->st_mode) ? "/" : "");
    return true;
}

/* As `ls -p`: the names with blanks between them. */
static inline const char *fake_list(struct fake *f, const char *path)
{
    struct core_dir_sink sink = {.ctx = f, .add = fake_list_add};
    uint64_t ino = *path ? fake_walk(f, path) : CORE_ROOT_INO;
    f->names[0] = 0;
    if (!ino || FAKE_OP(f, core_opendir(f->core, &fake_me, ino, fake_done, f)))
        return "error";
    uint64_t fh = f->reply.fh;
    assert_int_equal(FAKE_OP(f, core_readdir(f->core, &fake_me, fh, 0, &sink, fake_done, f)), 0);
    core_releasedir(f->core, fh);
    return f->names;
}

/* The changes that were handed to the replay since the last call, joined by ", "; answers them all. */
static inline const char *fake_changes(struct fake *f)
{
    f->data[0] = 0;
    for (size_t i = 0; i < f->change_count; i++) {
        snprintf(f->data + strlen(f->data), sizeof f->data - strlen(f->data), "%s%s", i ? ", " : "",
                 f->changes[i]);
        core_replayed(f->core, f->tokens[i]);
    }
    f->change_count = 0;
    return f->data;
}

#endif
