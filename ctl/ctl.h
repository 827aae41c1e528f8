/* quorumctl: etcdctl's command names, flags and simple output, one file a group of commands.
 *
 * A command starts its request in `run` and ends the loop by ctl_finish(); the exit code is 0 on success, 1
 * on an error of the server or the network, 2 on a usage error. */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include "lib/client/client.h"

struct ctl {
    uv_loop_t loop;
    struct client *client;
    uint64_t timeout_ms;
    int argc; /* the command's own arguments, flags included */
    char **argv;
    int exit_code;
    bool finished;
};

struct ctl_command {
    const char *name;     /* "get", "endpoint status" */
    const char *synopsis; /* arguments, for the usage text */
    const char *help;
    /* Checks the arguments and starts the request. Returns false after ctl_usage(). */
    bool (*run)(struct ctl *ctl);
};

extern const struct ctl_command ctl_kv_commands[];
extern const size_t ctl_kv_command_count;
extern const struct ctl_command ctl_cluster_commands[];
extern const size_t ctl_cluster_command_count;

/* Takes the flag --NAME (or --NAME=VALUE, --NAME VALUE if ret_value is not NULL) out of the arguments. */
bool ctl_flag(struct ctl *ctl, const char *name, const char **ret_value);
/* True if `count` arguments are left and none is an unknown flag; else prints why. */
bool ctl_arguments(struct ctl *ctl, int count_min, int count_max);

void ctl_usage(struct ctl *ctl, const char *format, ...) __attribute__((format(printf, 2, 3)));
void ctl_finish(struct ctl *ctl, int exit_code);
/* Prints the error of a result as etcdctl does and finishes; false if the result is no error. */
bool ctl_failed(struct ctl *ctl, const struct client_result *result);

/* The end of the range that is the prefix `key`: the key after it, or "\0" for all from it on
 * (etcd clientv3, GetPrefixRangeEnd). In the arena. */
struct arena;
struct bytes ctl_prefix_end(struct arena *arena, struct bytes key);

#endif
