/* The server CPU that one unary call costs: a forked server with a fixed answer, a client in this process.
 *
 *     rpc_echo [SECONDS]
 *
 * Prints one line for each shape (connections x calls in flight on each):
 *     connections=1 in_flight=100 calls_per_s=123456 server_us=1.9 server_user_us=1.1 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/memory.h"
#include "lib/rpc/rpc.h"

#define CONNECTIONS_MAX 100
#define REQUEST_BYTES 32
#define ANSWER_BYTES 256

/* ---- The server --------------------------------------------------------------------------------- */

struct usage {
    uint64_t user_us, system_us;
};

static void on_echo(struct rpc_call *call, void *service, struct bytes message)
{
    static const uint8_t answer[ANSWER_BYTES];
    (void)service;
    (void)message;
    rpc_call_reply(call, bytes_of(answer, sizeof answer));
}

static void on_usage(struct rpc_call *call, void *service, struct bytes message)
{
    struct rusage r;
    (void)service;
    (void)message;
    getrusage(RUSAGE_SELF, &r);
    struct usage u = {(uint64_t)r.ru_utime.tv_sec * 1000000 + (uint64_t)r.ru_utime.tv_usec,
                      (uint64_t)r.ru_stime.tv_sec * 1000000 + (uint64_t)r.ru_stime.tv_usec};
    rpc_call_reply(call, bytes_of(&u, sizeof u));
}

static int serve(int url_fd)
{
    static const struct rpc_method methods[] = {
        {.path = "/bench.Echo/Echo", .message = on_echo},
        {.path = "/bench.Echo/Usage", .message = on_usage},
    };
    uv_loop_t loop;
    char url[256] = "";
    struct error err;
    uv_loop_init(&loop);
    struct rpc_server *server = rpc_server_new(&loop, NULL);
    rpc_server_add(server, methods, ARRAY_LEN(methods), NULL);
    if (rpc_server_listen(server, "http://127.0.0.1:0", url, &err) != ERR_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    if (write(url_fd, url, sizeof url) != sizeof url)
        return 1;
    return uv_run(&loop, UV_RUN_DEFAULT);
}

/* ---- The client --------------------------------------------------------------------------------- */

struct bench {
    uv_loop_t loop;
    struct rpc_channel *channels[CONNECTIONS_MAX];
    int running;
    uint64_t calls, failures;
    bool ended;
    struct usage usage;
    bool usage_came;
};

struct slot {
    struct bench *bench;
    struct rpc_channel *channel;
};

static void on_answer(void *ctx, int status, const char *text, struct bytes answer, bool sent);

static void call(struct slot *slot)
{
    static const uint8_t request[REQUEST_BYTES];
    rpc_unary(slot->channel, "/bench.Echo/Echo", bytes_of(request, sizeof request), 0, NULL, 0,
              on_answer, slot);
}

static void on_answer(void *ctx, int status, const char *text, struct bytes answer, bool sent)
{
    struct slot *slot = ctx;
    (void)text;
    (void)answer;
    (void)sent;
    slot->bench->calls++;
    slot->bench->failures += status != 0;
    if (slot->bench->ended)
        slot->bench->running--;
    else
        call(slot);
}

static void on_usage_answer(void *ctx, int status, const char *text, struct bytes answer, bool sent)
{
    struct bench *b = ctx;
    (void)text;
    (void)sent;
    b->usage_came = true;
    if (status == 0 && answer.n == sizeof b->usage)
        memcpy(&b->usage, answer.p, answer.n);
}

static struct usage ask_usage(struct bench *b)
{
    b->usage_came = false;
    rpc_unary(b->channels[0], "/bench.Echo/Usage", BYTES_EMPTY, 0, NULL, 0, on_usage_answer, b);
    while (!b->usage_came)
        uv_run(&b->loop, UV_RUN_ONCE);
    return b->usage;
}

static void measure(const char *url, int connections, int in_flight, double seconds)
{
    struct bench b = {0};
    struct slot *slots = xcalloc((size_t)(connections * in_flight), sizeof *slots);
    uv_loop_init(&b.loop);
    for (int i = 0; i < connections; i++)
        b.channels[i] = rpc_channel_new(&b.loop, url, NULL);
    struct usage before = ask_usage(&b);
    uint64_t begun = uv_hrtime();
    for (int i = 0; i < connections * in_flight; i++) {
        slots[i] = (struct slot){&b, b.channels[i % connections]};
        b.running++;
        call(&slots[i]);
    }
    while (b.running) {
        uv_run(&b.loop, UV_RUN_ONCE);
        b.ended = (double)(uv_hrtime() - begun) >= seconds * 1e9;
    }
    double took = (double)(uv_hrtime() - begun) / 1e9;
    struct usage after = ask_usage(&b);
    double user = (double)(after.user_us - before.user_us);
    double system = (double)(after.system_us - before.system_us);
    printf("connections=%d in_flight=%d calls_per_s=%.0f server_us=%.2f server_user_us=%.2f "
           "failures=%" PRIu64 "\n",
           connections, in_flight, (double)b.calls / took, (user + system) / (double)b.calls,
           user / (double)b.calls, b.failures);
    for (int i = 0; i < connections; i++)
        rpc_channel_free(b.channels[i]);
    uv_run(&b.loop, UV_RUN_DEFAULT);
    uv_loop_close(&b.loop);
    free(slots);
}

int main(int argc, char **argv)
{
    static const int shapes[][2] = {{1, 1}, {100, 1}, {1, 10}, {100, 10}, {1, 100}};
    double seconds = argc > 1 ? atof(argv[1]) : 2;
    int ends[2];
    char url[256];
    if (pipe(ends) != 0)
        return 1;
    pid_t server = fork();
    if (server == 0)
        return serve(ends[1]);
    if (server < 0 || read(ends[0], url, sizeof url) != sizeof url)
        return 1;
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
        measure(url, shapes[i][0], shapes[i][1], seconds);
    kill(server, SIGTERM);
    waitpid(server, NULL, 0);
    return 0;
}
