/* quorumd's settings: etcd's flags (`--name=v` or `--name v`), each also as an environment variable QUORUMD_NAME
 * (the flag wins). Nothing is printed here: a mistake comes back as one line that names it and says what to
 * do. */
#ifndef SERVER_CONFIG_H
#define SERVER_CONFIG_H

#include "daemon/server/server.h"
#include "lib/base/bytes.h"
#include "lib/base/log.h"

enum config_action { CONFIG_RUN, CONFIG_HELP, CONFIG_VERSION, CONFIG_RESCUE, CONFIG_RESTORE };

struct config {
    struct server_config server;
    enum config_action action;
    const char *rescue_dir;   /* of CONFIG_RESCUE */
    const char *restore_file; /* of CONFIG_RESTORE */
    enum log_level log_level;
    struct buf notes; /* lines worth a warning: settings without effect, unknown variables */
    char **owned;     /* what the settings point into, beside argv and environment */
    size_t owned_count;
};

/* ERR_INVALID. `environment` as environ. config_free() in any case. */
enum errc config_parse(struct config *c, int argc, char *const *argv, char *const *environment,
                       struct error *err);
void config_help(struct buf *out);
void config_free(struct config *c);

/* Go's duration: "1h30m", "90s", "250ms"; a plain number counts hours, as etcd's retention. */
enum errc config_duration(const char *text, uint64_t *ret_ms);

/* ---- shared with the server (settings.c) ---- */

/* What is wrong with it as a whole: URLs, times. ERR_INVALID. */
enum errc server_config_check(const struct server_config *config, struct error *err);
/* A deep copy, so that the server depends on nobody's strings. */
void server_config_copy(struct server_config *to, const struct server_config *from);
void server_config_free(struct server_config *config);

#endif
