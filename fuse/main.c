/* quorumfs: mounts a key prefix of a quorumd or etcd cluster. Wires options, store, core and kernel together
 * on one loop; everything else is in the modules. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "fuse/backend_client.h"
#include "fuse/core.h"
#include "fuse/daemonize.h"
#include "fuse/embedded.h"
#include "fuse/holders.h"
#include "fuse/mount_info.h"
#include "fuse/options.h"
#include "fuse/replay.h"
#include "fuse/session.h"
#include "lib/base/log.h"
#include "lib/base/memory.h"

#define TICK_MS 100
#define END_MS 15000 /* how long the end waits for saves that are under way */

struct mount {
    struct options options;
    char *point; /* absolute */
    char *identity;
    uv_loop_t loop;
    uv_timer_t tick;
    uv_signal_t signals[3];
    struct server_thread *server;
    struct backend_client *backend;
    struct core *core;
    struct session *session;
    struct holders *holders;
    struct replay *replay;
    int ready_fd; /* the parent waits on it; -1: none */
    int exit_code;
    bool ending, replay_ends, saved;
    uint64_t end_ms;
};

/* ---- The end ---------------------------------------------------------------------------------------- */

static void close_handles(struct mount *m)
{
    for (size_t i = 0; i < ARRAY_LEN(m->signals); i++)
        uv_close((uv_handle_t *)&m->signals[i], NULL);
    uv_close((uv_handle_t *)&m->tick, NULL);
}

static void finish(struct mount *m)
{
    if (m->holders)
        holders_free(m->holders);
    m->holders = NULL;
    if (m->session)
        session_free(m->session);
    m->session = NULL;
    backend_client_free(m->backend);
    close_handles(m);
}

static void saved(void *ctx)
{
    struct mount *m = ctx;
    m->saved = true;
}

static void replay_stopped(void *ctx)
{
    struct mount *m = ctx;
    m->replay = NULL;
}

static void begin_end(struct mount *m)
{
    if (m->ending)
        return;
    m->ending = true;
    m->end_ms = env_mono_ms(env_system()) + END_MS;
    if (m->replay && !m->replay_ends) {
        m->replay_ends = true;
        replay_stop(m->replay, replay_stopped, m);
    }
    core_shutdown(m->core, saved, m);
}

static void on_ended(void *ctx)
{
    begin_end(ctx);
}

static void on_signal(uv_signal_t *signal, int number)
{
    struct mount *m = signal->data;
    (void)number;
    if (!m->session) { /* not mounted yet */
        m->exit_code = 1;
        uv_stop(&m->loop);
        return;
    }
    begin_end(m);
}

static void on_tick(uv_timer_t *timer)
{
    struct mount *m = timer->data;
    struct error why;
    core_tick(m->core);
    if (m->server && !m->ending && embedded_failed(m->server, &why)) {
        log_error("mount", "the server on %s has ended: %s", m->options.data_dir, why.message);
        m->exit_code = 1;
        begin_end(m);
    }
    if (!m->ending)
        return;
    bool late = env_mono_ms(env_system()) > m->end_ms;
    if ((m->saved && !m->replay) || late) {
        if (m->session)
            session_unmount(m->session);
        if (core_waiting(m->core) == 0 || late)
            finish(m);
    }
}

/* ---- Watchers and closers --------------------------------------------------------------------------- */

static void ask_holders(void *ctx, const struct core_holders_query *q, core_holders_done done,
                        void *done_ctx)
{
    struct mount *m = ctx;
    holders_ask(m->holders, q, q->never_shared, done, done_ctx);
}

static bool push_replay(void *ctx, const struct core_change *change)
{
    struct mount *m = ctx;
    return m->replay && !m->replay_ends && replay_push(m->replay, change);
}

static int32_t tid_of_replay(void *ctx)
{
    struct mount *m = ctx;
    return m->replay ? replay_tid(m->replay) : 0;
}

/* On the notifier thread. The session lives until the replay has stopped. */
static void notify(void *ctx, uint64_t ino)
{
    struct mount *m = ctx;
    session_invalidate(m->session, ino);
}

static void on_replayed(void *ctx, uint64_t token)
{
    struct mount *m = ctx;
    core_replayed(m->core, token);
}

static bool start_helpers(struct mount *m, struct error *err)
{
    dev_t dev;
    if (!mount_info_of_path(m->point, &dev)) {
        error_set(err, ERR_IO, "%s is not in /proc/self/mountinfo after mounting", m->point);
        return false;
    }
    m->holders = holders_new(&m->loop, dev);
    struct replay_config config = {.loop = &m->loop,
                                   .mount_point = m->point,
                                   .dev = dev,
                                   .fuse_fd = session_fd(m->session),
                                   .notify = notify,
                                   .replayed = on_replayed,
                                   .ctx = m};
    return replay_start(&config, &m->replay, err) == ERR_OK;
}

/* ---- The start -------------------------------------------------------------------------------------- */

static bool fail(struct mount *m, const char *text)
{
    fprintf(stderr, "quorumfs: %s\n", text);
    m->exit_code = 1;
    uv_stop(&m->loop);
    return false;
}

static void on_loaded(void *ctx, enum errc code, const char *text)
{
    struct mount *m = ctx;
    struct error err;
    if (code != ERR_OK) {
        char *line = xasprintf("can't read the keys of %s: %s; is the cluster running there?",
                               m->options.source, text && *text ? text : errc_text(code));
        fail(m, line);
        free(line);
        return;
    }
    struct session_config config = {.mount_point = m->point,
                                    .source = m->options.source,
                                    .allow_other = m->options.allow_other,
                                    .read_only = m->options.read_only,
                                    .debug = m->options.debug,
                                    .core = m->core,
                                    .replay_tid = tid_of_replay,
                                    .ended = on_ended,
                                    .ctx = m};
    if (session_mount(&m->loop, &config, &m->session, &err) != ERR_OK) {
        fail(m, err.message);
        return;
    }
    if (!start_helpers(m, &err)) {
        session_unmount(m->session);
        fail(m, err.message);
        return;
    }
    log_info("mount", "serving source=%s mount=%s", m->options.source, m->point);
    if (m->ready_fd >= 0) {
        log_set_sink(daemonize_syslog, NULL);
        daemonize_ready(m->ready_fd);
        m->ready_fd = -1;
    }
}

/* Whether /proc/self/mountinfo has a FUSE file system at this very path. */
static bool is_fuse_mount(const char *path)
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    size_t size = 0;
    bool found = false;
    while (f && getline(&line, &size, f) > 0) {
        char point[4096];
        if (sscanf(line, "%*s %*s %*s %*s %4095s", point) == 1 && strcmp(point, path) == 0)
            found = strstr(line, " - fuse") != NULL;
    }
    free(line);
    if (f)
        fclose(f);
    return found;
}

static bool check_point(struct mount *m, struct error *err)
{
    const char *given = m->options.mount_point;
    struct stat st;
    m->point = realpath(given, NULL);
    int error = errno;
    if (m->point && stat(m->point, &st) != 0)
        error = errno;
    else if (m->point)
        error = S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
    if (error == ENOTCONN || (m->point && is_fuse_mount(m->point)))
        error_set(err, ERR_BUSY, "%s is a mount already; end it first: fusermount3 -u %s", given,
                  given);
    else if (error == ENOENT)
        error_set(err, ERR_NOT_FOUND, "the mount point %s does not exist; make it: mkdir %s", given,
                  given);
    else if (error == ENOTDIR)
        error_set(err, ERR_INVALID, "the mount point %s is not a directory", given);
    else if (error)
        error_set(err, ERR_IO, "mount point %s: %s", given, strerror(error));
    else
        return true;
    return false;
}

static void make_core(struct mount *m)
{
    const struct options *o = &m->options;
    m->identity = xasprintf("%s on %s", o->embedded ? o->data_dir : o->source, m->point);
    struct core_options options = {.prefix = bytes_str(o->prefix),
                                   .identity = m->identity,
                                   .timeout_ms = o->timeout_ms,
                                   .cached = o->cached,
                                   .stale_allow = o->stale_allow,
                                   .cache_bytes = o->cache_bytes,
                                   .uid = o->uid,
                                   .gid = o->gid,
                                   .file_mode = o->file_mode,
                                   .dir_mode = o->dir_mode,
                                   .local_patterns = (const char *const *)o->local.item,
                                   .local_pattern_count = o->local.count,
                                   .append_idle_ms = o->append_idle_ms};
    struct core_host host = {
        .ctx = m, .env = env_system(), .holders = ask_holders, .replay = push_replay};
    m->core = core_new(&options, &host, backend_client_backend(m->backend));
}

static bool start(struct mount *m, struct error *err)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    struct options *o = &m->options;
    if (o->embedded && embedded_start(o, &m->server, err) != ERR_OK)
        return false;
    uv_loop_init(&m->loop);
    if (backend_client_new(&m->loop, (const char *const *)o->endpoints.item, o->endpoints.count,
                           o->timeout_ms, &m->backend, err) != ERR_OK)
        return false;
    make_core(m);
    uv_timer_init(&m->loop, &m->tick);
    m->tick.data = m;
    uv_timer_start(&m->tick, on_tick, TICK_MS, TICK_MS);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        uv_signal_init(&m->loop, &m->signals[i]);
        m->signals[i].data = m;
        uv_signal_start(&m->signals[i], on_signal, numbers[i]);
    }
    core_load(m->core, on_loaded, m);
    return true;
}

int main(int argc, char **argv)
{
    static struct mount mount = {.ready_fd = -1};
    struct mount *m = &mount;
    struct error err;
    if (options_parse(argc, argv, &m->options, &err) != ERR_OK) {
        fprintf(stderr, "quorumfs: %s (quorumfs --help shows how it is called)\n", err.message);
        return 2;
    }
    if (m->options.help || m->options.version) {
        printf("%s", m->options.help ? options_usage : "quorumfs " QUORUMFS_VERSION "\n");
        return 0;
    }
    if (!check_point(m, &err)) {
        fprintf(stderr, "quorumfs: %s\n", err.message);
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    if (m->options.debug)
        log_set_level(LOG_DEBUG);
    if (!m->options.foreground)
        m->ready_fd = daemonize();
    if (!start(m, &err)) {
        fprintf(stderr, "quorumfs: %s\n", err.message);
        return 1;
    }
    uv_run(&m->loop, UV_RUN_DEFAULT);
    if (m->server)
        embedded_stop(m->server);
    if (m->ending)
        core_free(m->core);
    return m->exit_code;
}
