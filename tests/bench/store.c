/* What the store costs, on this machine: `build/tests/bench/bench_store [KEYS] [DIR]` prints one line a
 * question. Figures of the loop thread are CPU time of that thread alone; the worker is a real one. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/store/mvcc.h"
#include "lib/base/memory.h"
#include "lib/base/worker_thread.h"

#define VALUE_N 256

struct bench {
    uv_loop_t loop;
    struct mvcc_config config;
    struct mvcc *m;
    uint64_t rng;
    uint8_t value[VALUE_N];
};

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what, const struct error *err)
{
    fprintf(stderr, "%s: %s\n", what, err->message);
    exit(1);
}

static void on_failed(void *ctx, const struct error *err)
{
    (void)ctx;
    die("the store failed", err);
}

/* 16 bytes that look random, a function of n. */
static struct bytes key_of(uint64_t n, uint8_t *p)
{
    uint64_t a = (n + 1) * UINT64_C(0x9e3779b97f4a7c15),
             b = (a ^ a >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
    put_le64(p, a ^ a >> 32);
    put_le64(p + 8, b ^ b >> 32);
    return bytes_of(p, 16);
}

static void open_store(struct bench *b)
{
    struct error err = {0};
    if (worker_thread_start(&b->loop, "store", &b->config.worker, &err) != ERR_OK)
        die("worker", &err);
    double t = seconds(CLOCK_MONOTONIC);
    if (mvcc_open(&b->config, &b->m, &err) != ERR_OK)
        die("open", &err);
    printf("open at revision %lld: %.3f s\n", (long long)mvcc_revision(b->m),
           seconds(CLOCK_MONOTONIC) - t);
}

static void close_store(struct bench *b)
{
    double t = seconds(CLOCK_MONOTONIC);
    mvcc_close(b->m);
    worker_thread_stop(b->config.worker);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    printf("close: %.3f s\n", seconds(CLOCK_MONOTONIC) - t);
}

/* Puts of n keys, in order of their numbers or at random ones below `keys`. */
static void puts_of(struct bench *b, const char *name, uint64_t n, uint64_t keys, bool in_order)
{
    uint8_t p[16];
    double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_THREAD_CPUTIME_ID);
    double all = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (uint64_t i = 0; i < n; i++) {
        b->rng = b->rng * UINT64_C(6364136223846793005) + 1442695040888963407;
        mvcc_begin(b->m, mvcc_applied_index(b->m) + 1, 1, i);
        mvcc_put(b->m, key_of(in_order ? i : (b->rng >> 20) % keys, p), bytes_of(b->value, VALUE_N),
                 0, NULL);
        mvcc_end(b->m, NULL, NULL);
        while (mvcc_backlog_bytes(b->m) > MVCC_BACKLOG_MAX)
            uv_run(&b->loop, UV_RUN_ONCE);
        if (i % 64 == 0)
            uv_run(&b->loop, UV_RUN_NOWAIT);
    }
    cpu = seconds(CLOCK_THREAD_CPUTIME_ID) - cpu;
    uv_run(&b->loop, UV_RUN_DEFAULT);
    printf("%s: loop %.2f us a put, all threads %.2f us, %.0f puts/s\n", name,
           cpu / (double)n * 1e6, (seconds(CLOCK_PROCESS_CPUTIME_ID) - all) / (double)n * 1e6,
           (double)n / (seconds(CLOCK_MONOTONIC) - wall));
}

static void gets_of(struct bench *b, uint64_t n, uint64_t keys)
{
    uint8_t p[16];
    double t = seconds(CLOCK_MONOTONIC);
    for (uint64_t i = 0; i < n; i++) {
        b->rng = b->rng * UINT64_C(6364136223846793005) + 1442695040888963407;
        mvcc_kv_unref(mvcc_get(b->m, key_of((b->rng >> 20) % keys, p), true));
    }
    printf("get at random: %.2f us\n", (seconds(CLOCK_MONOTONIC) - t) / (double)n * 1e6);
}

static void range_of_all(struct bench *b, const char *name, struct mvcc_query q)
{
    struct mvcc_result r;
    struct error err = {0};
    q.range.end = bytes_of("", 1);
    q.range.key = BYTES_EMPTY;
    double t = seconds(CLOCK_MONOTONIC);
    if (mvcc_range(b->m, &q, &r, &err) != ERR_OK)
        die(name, &err);
    printf("%s: %.3f ms, %zu of %lld\n", name, (seconds(CLOCK_MONOTONIC) - t) * 1e3, r.count,
           (long long)r.total);
    mvcc_result_free(&r);
}

static void on_done(void *ctx)
{
    *(bool *)ctx = true;
}

static void on_hash(void *ctx, enum errc code, uint32_t hash, int64_t compacted, int64_t revision)
{
    (void)code, (void)hash, (void)compacted, (void)revision;
    *(bool *)ctx = true;
}

static void on_code(void *ctx, enum errc code)
{
    (void)code;
    *(bool *)ctx = true;
}

/* Lets the loop turn until done; the longest turn is what another request would have waited. */
static void wait_for(struct bench *b, const char *name, bool *done)
{
    double wall = seconds(CLOCK_MONOTONIC), longest = 0;
    double all = seconds(CLOCK_PROCESS_CPUTIME_ID);
    while (!*done) {
        uv_run(&b->loop, UV_RUN_ONCE);
        double cpu = seconds(CLOCK_THREAD_CPUTIME_ID);
        uv_run(&b->loop, UV_RUN_NOWAIT);
        cpu = seconds(CLOCK_THREAD_CPUTIME_ID) - cpu;
        longest = cpu > longest ? cpu : longest;
    }
    uv_run(&b->loop, UV_RUN_DEFAULT);
    printf("%s: %.3f s, CPU %.3f s, loop held %.2f ms at most, file %.1f MB of which %.1f in use\n",
           name, seconds(CLOCK_MONOTONIC) - wall, seconds(CLOCK_PROCESS_CPUTIME_ID) - all,
           longest * 1e3, (double)mvcc_size(b->m) / 1e6, (double)mvcc_size_in_use(b->m) / 1e6);
}

static void long_work(struct bench *b)
{
    bool done = false;
    mvcc_hash_kv(b->m, 0, on_hash, &done);
    wait_for(b, "hash", &done);
    mvcc_begin(b->m, mvcc_applied_index(b->m) + 1, 1, 0);
    mvcc_compact(b->m, mvcc_revision(b->m));
    mvcc_end(b->m, NULL, NULL);
    done = false;
    mvcc_compact_wait(b->m, on_done, &done);
    wait_for(b, "compaction", &done);
    done = false;
    mvcc_defragment(b->m, on_code, &done);
    wait_for(b, "defragmentation", &done);
}

int main(int argc, char **argv)
{
    uint64_t keys = argc > 1 ? strtoull(argv[1], NULL, 0) : 200000;
    char dir[256];
    snprintf(dir, sizeof(dir), "%s/bench-store.XXXXXX", argc > 2 ? argv[2] : ".");
    if (!mkdtemp(dir))
        return perror(dir), 1;
    struct bench b = {.rng = 42};
    uv_loop_init(&b.loop);
    b.config = (struct mvcc_config){.dir = dir, .disk = disk_posix(), .failed = on_failed};
    open_store(&b);
    puts_of(&b, "put new keys", keys, keys, true);
    puts_of(&b, "put over keys at random", keys, keys, false);
    gets_of(&b, keys, keys);
    range_of_all(&b, "count of all", (struct mvcc_query){.count_only = true});
    range_of_all(&b, "1000 keys of all", (struct mvcc_query){.limit = 1000});
    range_of_all(&b, "all keys without values", (struct mvcc_query){.keys_only = true});
    range_of_all(&b, "all", (struct mvcc_query){0});
    close_store(&b);
    open_store(&b);
    long_work(&b);
    close_store(&b);
    open_store(&b);
    close_store(&b);
    uv_loop_close(&b.loop);
    char command[320];
    snprintf(command, sizeof(command), "rm -r '%s'", dir);
    return system(command);
}
