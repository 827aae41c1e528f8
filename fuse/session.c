#define FUSE_USE_VERSION 314
#include "fuse/session.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fuse/session_ops.h"
#include "lib/base/memory.h"

#define REQUESTS_A_TURN 32     /* then the loop's other work has its turn */
#define SPIN_NS 50000          /* how long the next request is awaited without sleeping */
#define SPIN_MISSES_MAX 8      /* spins without a request before they are left out for a while */
#define SPIN_PAUSE_NS 20000000 /* and for how long */

struct session {
    struct session_config config;
    struct session_ctx ops; /* what libfuse hands to the operations */
    struct fuse_session *se;
    struct fuse_buf buf;
    uv_poll_t poll;
    uv_idle_t spin;
    bool spins, spinning, over;
    unsigned misses;
    uint64_t spin_until_ns, pause_until_ns;
    int handles;
    bool freed;
    uint64_t init_unique; /* of the INIT request, until it is answered */
    bool offers_mmap;
};

/* ---- INIT ------------------------------------------------------------------------------------------- */

/* Shared mappings for reading of files with direct I/O: a bit of the INIT answer that libfuse 3.14 does not
 * know. Both directions pass here, so the answer gets it if the kernel offers it. */
static ssize_t io_read(int fd, void *buf, size_t n, void *userdata)
{
    struct session *s = ((struct session_ctx *)userdata)->session;
    ssize_t got = read(fd, buf, n);
    const struct fuse_in_header *in = buf;
    if (got >= (ssize_t)(sizeof *in + sizeof(struct fuse_init_in)) && in->opcode == FUSE_INIT) {
        const struct fuse_init_in *init = (const void *)(in + 1);
        s->init_unique = in->unique;
        s->offers_mmap = (init->flags & FUSE_INIT_EXT) &&
                         (init->flags2 & (uint32_t)(FUSE_DIRECT_IO_ALLOW_MMAP_BIT >> 32));
    }
    return got;
}

static ssize_t io_writev(int fd, struct iovec *iov, int count, void *userdata)
{
    struct session *s = ((struct session_ctx *)userdata)->session;
    const struct fuse_out_header *out = iov[0].iov_base;
    if (s->init_unique && out->unique == s->init_unique) {
        s->init_unique = 0;
        struct fuse_init_out *init = count > 1 ? iov[1].iov_base : NULL;
        if (init && out->error == 0 && s->offers_mmap && (init->flags & FUSE_INIT_EXT) &&
            iov[1].iov_len >= offsetof(struct fuse_init_out, flags2) + sizeof init->flags2)
            init->flags2 |= (uint32_t)(FUSE_DIRECT_IO_ALLOW_MMAP_BIT >> 32);
    }
    return writev(fd, iov, count);
}

/* ---- Serving ---------------------------------------------------------------------------------------- */

static void spin_stop(struct session *s)
{
    if (s->spinning)
        uv_idle_stop(&s->spin);
    s->spinning = false;
}

static void end(struct session *s)
{
    if (s->over)
        return;
    s->over = true;
    spin_stop(s);
    uv_poll_stop(&s->poll);
    s->config.ended(s->config.ctx);
}

/* Serves what is there; returns how many requests that were. */
static int serve(struct session *s)
{
    int served = 0;
    while (served < REQUESTS_A_TURN && !s->over) {
        int n = fuse_session_receive_buf(s->se, &s->buf);
        if (n == -EINTR)
            continue;
        if (n == -EAGAIN)
            break;
        if (n <= 0) {
            end(s);
            break;
        }
        fuse_session_process_buf(s->se, &s->buf);
        served++;
        if (fuse_session_exited(s->se))
            end(s);
    }
    return served;
}

static void on_spin(uv_idle_t *idle);

static void spin_start(struct session *s)
{
    uint64_t now = uv_hrtime();
    if (!s->spins || s->over || now < s->pause_until_ns)
        return;
    s->spin_until_ns = now + SPIN_NS;
    if (!s->spinning)
        uv_idle_start(&s->spin, on_spin);
    s->spinning = true;
}

/* While an idle handle runs, the loop does not sleep: sockets are looked at in each turn as well. */
static void on_spin(uv_idle_t *idle)
{
    struct session *s = CONTAINER_OF(idle, struct session, spin);
    if (serve(s) > 0) {
        s->misses = 0;
        spin_start(s);
    } else if (uv_hrtime() >= s->spin_until_ns) {
        spin_stop(s);
        if (++s->misses >= SPIN_MISSES_MAX) {
            s->misses = 0;
            s->pause_until_ns = uv_hrtime() + SPIN_PAUSE_NS;
        }
    }
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct session *s = CONTAINER_OF(poll, struct session, poll);
    (void)events;
    if (status < 0) { /* EBADF after an unmount */
        end(s);
        return;
    }
    if (serve(s) > 0)
        spin_start(s);
}

/* ---- Life ------------------------------------------------------------------------------------------- */

static struct fuse_session *make_session(struct session *s)
{
    const char *options[4] = {"default_permissions", NULL, NULL, NULL};
    size_t count = 1;
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    if (s->config.allow_other)
        options[count++] = "allow_other";
    if (s->config.read_only)
        options[count++] = "ro";
    fuse_opt_add_arg(&args, "quorumfs");
    char *names = xasprintf("-osubtype=quorumfs,fsname=%s", s->config.source);
    for (char *p = names + strlen("-osubtype=quorumfs,"); *p; p++)
        if (*p == ',') /* separates options */
            *p = ';';
    fuse_opt_add_arg(&args, names);
    for (size_t i = 0; i < count; i++) {
        char *option = xasprintf("-o%s", options[i]);
        fuse_opt_add_arg(&args, option);
        free(option);
    }
    if (s->config.debug)
        fuse_opt_add_arg(&args, "-odebug");
    struct fuse_session *se =
        fuse_session_new(&args, &session_operations, sizeof session_operations, &s->ops);
    fuse_opt_free_args(&args);
    free(names);
    return se;
}

enum errc session_mount(uv_loop_t *loop, const struct session_config *config,
                        struct session **ret_session, struct error *err)
{
    static const struct fuse_custom_io io = {.writev = io_writev, .read = io_read};
    struct session *s = xcalloc(1, sizeof *s);
    s->config = *config;
    s->ops = (struct session_ctx){
        .session = s, .core = config->core, .replay_tid = config->replay_tid, .ctx = config->ctx};
    s->se = make_session(s);
    if (!s->se || fuse_session_mount(s->se, config->mount_point) != 0) {
        if (s->se)
            fuse_session_destroy(s->se);
        free(s);
        return error_set(err, ERR_IO, "can't mount on %s: %s", config->mount_point,
                         access("/dev/fuse", R_OK | W_OK) ? "no access to /dev/fuse"
                                                          : "the kernel refused it");
    }
    int fd = fuse_session_fd(s->se);
    fuse_session_custom_io(s->se, &io, fd);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    s->spins = sysconf(_SC_NPROCESSORS_ONLN) > 1;
    uv_poll_init(loop, &s->poll, fd);
    uv_idle_init(loop, &s->spin);
    s->handles = 2;
    uv_poll_start(&s->poll, UV_READABLE | UV_DISCONNECT, on_poll);
    *ret_session = s;
    return ERR_OK;
}

void session_unmount(struct session *s)
{
    if (s->over)
        return;
    spin_stop(s);
    uv_poll_stop(&s->poll);
    fuse_session_unmount(s->se); /* closes the descriptor first: no request can be left waiting */
    end(s);
}

static void handle_closed(uv_handle_t *handle)
{
    struct session *s = handle->data;
    if (--s->handles > 0)
        return;
    fuse_session_unmount(s->se);
    fuse_session_destroy(s->se);
    free(s->buf.mem);
    free(s);
}

void session_free(struct session *s)
{
    assert(!s->freed);
    s->freed = s->over = true;
    spin_stop(s);
    uv_poll_stop(&s->poll);
    s->poll.data = s->spin.data = s;
    uv_close((uv_handle_t *)&s->poll, handle_closed);
    uv_close((uv_handle_t *)&s->spin, handle_closed);
}

int session_fd(const struct session *s)
{
    return fuse_session_fd(s->se);
}

void session_invalidate(struct session *s, uint64_t ino)
{
    fuse_lowlevel_notify_inval_inode(s->se, ino, 0, 0);
}
