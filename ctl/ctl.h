/* quorumctl: etcdctl's command names, flags and output, one file a group of commands.
 *
 * A command does its work in `run`: it starts a request and ends the loop by ctl_finish(), or asks with ctl_ask(),
 * which waits, and ends with ctl_finish() too. The exit code is 0 on success, 1 on an error of the server or the
 * network, 2 on a usage error. */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include "lib/client/client.h"

enum ctl_output { CTL_SIMPLE, CTL_JSON, CTL_TABLE, CTL_FIELDS };

struct ctl {
    uv_loop_t loop;
    struct client *client;                 /* of all endpoints, with failover */
    char *endpoints[CLIENT_ENDPOINTS_MAX]; /* as they were given */
    size_t endpoint_count;
    uint64_t timeout_ms;
    enum ctl_output output;
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

/* Each ends with an entry without a name. */
extern const struct ctl_command ctl_kv_commands[], ctl_member_commands[], ctl_endpoint_commands[],
    ctl_maintenance_commands[], ctl_snapshot_commands[];

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

/* ---- main.c: endpoints */

/* A client of one endpoint (with a scheme or without). NULL after ctl_usage(). */
struct client *ctl_connect(struct ctl *ctl, char *const *endpoints, size_t count);
/* False after ctl_usage(): the output was chosen, and this command has none of the kind. */
bool ctl_prints(struct ctl *ctl, bool table, bool fields);

/* ---- ask.c: waiting for answers */

struct ctl_answer {
    enum errc code;
    char *text;                /* of an error */
    ProtobufCMessage *message; /* on ERR_OK */
};
/* Asks `c` and runs the loop until there is an answer. ctl_answer_free() in any case. */
void ctl_ask(struct ctl *ctl, struct client *c, const char *path, const ProtobufCMessage *request,
             const ProtobufCMessageDescriptor *response, bool read_only,
             struct ctl_answer *ret_answer);
void ctl_answer_free(struct ctl_answer *a);
/* Prints the error as etcdctl does and finishes; false if there is none. */
bool ctl_answer_failed(struct ctl *ctl, const struct ctl_answer *a);
/* With --cluster: the endpoints become what the members advertise. False: finished with an error. */
bool ctl_take_cluster_flag(struct ctl *ctl);
/* Runs the loop until *flag. */
void ctl_wait(struct ctl *ctl, const bool *flag);

/* ---- print.c */

/* As Go's encoding/json prints etcd's messages: fields in the order of their numbers, what is zero or empty is
 * left out, bytes in base64, enums as numbers. */
void ctl_json(struct buf *b, const ProtobufCMessage *message);
void ctl_print_json(const ProtobufCMessage *message); /* a line */
void ctl_json_string(struct buf *b, const char *s, size_t n);

/* etcdctl's table: cells are copied; as many a row as there are headers. */
struct ctl_table {
    const char *const *headers;
    size_t columns, rows, at; /* at: in the row that isn't complete */
    char **cells;
};
void ctl_table_add(struct ctl_table *t, char *cell); /* takes it over; row by row */
void ctl_table_print(struct ctl_table *t);           /* and frees */

char *ctl_size_text(uint64_t bytes);  /* "20 kB"; the caller frees */
char *ctl_duration_text(uint64_t ns); /* Go's: "824.422µs" */

#endif
