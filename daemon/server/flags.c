/* The command line and the environment. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/server/config.h"
#include "lib/base/memory.h"

#define ENV_PREFIX "QUORUMD_"

struct flag;
typedef enum errc (*flag_set)(struct config *c, const struct flag *flag, const char *value,
                              struct error *err);

struct flag {
    const char *name;
    flag_set set;
    size_t offset; /* in struct server_config, for the plain kinds */
    const char *default_text;
    const char *help;
    bool is_bool; /* `--flag` alone means true */
};

static enum errc bad_value(const struct flag *flag, const char *value, const char *expected,
                           struct error *err)
{
    return error_set(err, ERR_INVALID, "--%s: %s is not %s", flag->name,
                     *value ? value : "an empty value", expected);
}

static void *field(struct config *c, const struct flag *flag)
{
    return (char *)&c->server + flag->offset;
}

static char *own(struct config *c, char *s)
{
    c->owned = xrealloc(c->owned, (c->owned_count + 1) * sizeof(*c->owned));
    return c->owned[c->owned_count++] = s;
}

/* ---- Kinds of values ----------------------------------------------------------------------------- */

static enum errc set_text(struct config *c, const struct flag *flag, const char *value,
                          struct error *err)
{
    if (!*value)
        return bad_value(flag, value, "a text", err);
    *(const char **)field(c, flag) = value;
    return ERR_OK;
}

static enum errc set_urls(struct config *c, const struct flag *flag, const char *value,
                          struct error *err)
{
    struct server_urls *urls = field(c, flag);
    urls->count = 0;
    char *save, *list = own(c, xstrdup(value));
    for (char *url = strtok_r(list, ",", &save); url; url = strtok_r(NULL, ",", &save)) {
        if (urls->count == SERVER_URLS_MAX)
            return error_set(err, ERR_INVALID, "--%s: more than %d URLs", flag->name,
                             SERVER_URLS_MAX);
        size_t n = strlen(url);
        if (n && url[n - 1] == '/' && strncmp(url, "unix:", 5))
            url[n - 1] = 0; /* "http://host:port/" is the same address */
        urls->url[urls->count++] = url;
    }
    return urls->count ? ERR_OK : bad_value(flag, value, "a list of URLs", err);
}

static enum errc parse_number(const char *value, uint64_t *ret_number)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(value, &end, 10);
    if (!isdigit((unsigned char)*value) || *end || errno)
        return ERR_INVALID;
    *ret_number = n;
    return ERR_OK;
}

static enum errc set_number(struct config *c, const struct flag *flag, const char *value,
                            struct error *err)
{
    uint64_t n;
    if (parse_number(value, &n) || n == 0)
        return bad_value(flag, value, "a number above 0", err);
    *(uint64_t *)field(c, flag) = n;
    return ERR_OK;
}

static enum errc set_size(struct config *c, const struct flag *flag, const char *value,
                          struct error *err)
{
    uint64_t n;
    if (parse_number(value, &n) || n == 0 || n > INT32_MAX / 2)
        return bad_value(flag, value, "a number from 1 to 1073741823", err);
    *(size_t *)field(c, flag) = (size_t)n;
    return ERR_OK;
}

/* etcd: 0 is the default, a negative number no limit. */
static enum errc set_quota(struct config *c, const struct flag *flag, const char *value,
                           struct error *err)
{
    uint64_t n;
    bool negative = *value == '-';
    if (parse_number(value + negative, &n))
        return bad_value(flag, value, "a number of bytes", err);
    if (negative)
        c->server.quota_bytes = UINT64_MAX;
    else if (n > 0)
        c->server.quota_bytes = n;
    return ERR_OK;
}

static enum errc set_state(struct config *c, const struct flag *flag, const char *value,
                           struct error *err)
{
    if (strcmp(value, "new") && strcmp(value, "existing"))
        return bad_value(flag, value, "\"new\" or \"existing\"", err);
    c->server.initial_cluster_existing = !strcmp(value, "existing");
    return ERR_OK;
}

static enum errc set_mode(struct config *c, const struct flag *flag, const char *value,
                          struct error *err)
{
    if (strcmp(value, "periodic") && strcmp(value, "revision"))
        return bad_value(flag, value, "\"periodic\" or \"revision\"", err);
    c->server.compaction_mode =
        strcmp(value, "revision") ? SERVER_COMPACTION_PERIODIC : SERVER_COMPACTION_REVISION;
    return ERR_OK;
}

static enum errc set_log_level(struct config *c, const struct flag *flag, const char *value,
                               struct error *err)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (!strcmp(value, names[i])) {
            c->log_level = (enum log_level)i;
            return ERR_OK;
        }
    }
    return bad_value(flag, value, "one of debug, info, warn, error", err);
}

static enum errc set_help(struct config *c, const struct flag *flag, const char *value,
                          struct error *err)
{
    (void)flag;
    (void)value;
    (void)err;
    c->action = CONFIG_HELP;
    return ERR_OK;
}

static enum errc set_rescue(struct config *c, const struct flag *flag, const char *value,
                            struct error *err)
{
    if (!*value)
        return bad_value(flag, value, "the name of a new directory", err);
    c->action = CONFIG_RESCUE;
    c->rescue_dir = value;
    return ERR_OK;
}

static enum errc set_restore(struct config *c, const struct flag *flag, const char *value,
                             struct error *err)
{
    if (!*value)
        return bad_value(flag, value, "the name of a snapshot's file", err);
    c->action = CONFIG_RESTORE;
    c->restore_file = value;
    return ERR_OK;
}

static enum errc set_version(struct config *c, const struct flag *flag, const char *value,
                             struct error *err)
{
    (void)flag;
    (void)value;
    (void)err;
    c->action = CONFIG_VERSION;
    return ERR_OK;
}

/* The retention means hours or revisions, by the mode, which may come after it: kept for the end. */
static enum errc set_retention(struct config *c, const struct flag *flag, const char *value,
                               struct error *err);

static enum errc set_scrub(struct config *c, const struct flag *flag, const char *value,
                           struct error *err)
{
    uint64_t ms;
    if (!*value || config_duration(value, &ms))
        return bad_value(flag, value, "a duration such as 1h30m", err);
    c->server.scrub_ms = ms;
    return ERR_OK;
}

static enum errc set_no_effect(struct config *c, const struct flag *flag, const char *value,
                               struct error *err)
{
    (void)err;
    buf_printf(&c->notes, "--%s=%s has no effect: %s\n", flag->name, value, flag->help);
    return ERR_OK;
}

static enum errc refuse(struct config *c, const struct flag *flag, const char *value,
                        struct error *err)
{
    (void)c;
    if (!*value || !strcmp(value, "false"))
        return ERR_OK; /* the way it is anyway */
    return error_set(err, ERR_INVALID, "--%s is not supported: %s", flag->name, flag->help);
}

/* ---- The table ----------------------------------------------------------------------------------- */

#define AT(field) offsetof(struct server_config, field)
#define TLS "keep the ports on a trusted network or behind a TLS proxy, and leave the flag out"

static const struct flag flags[] = {
    {"name", set_text, AT(name), "default", "this member's name"},
    {"data-dir", set_text, AT(data_dir), "NAME.etcd", "where the data are kept"},
    {"listen-client-urls", set_urls, AT(listen_client_urls), "http://localhost:2379",
     "addresses for clients: http://HOST:PORT or unix:PATH, comma-separated"},
    {"advertise-client-urls", set_urls, AT(advertise_client_urls), "as listen-client-urls",
     "addresses that the other members tell clients"},
    {"listen-peer-urls", set_urls, AT(listen_peer_urls), "http://localhost:2380",
     "addresses for the other members"},
    {"initial-advertise-peer-urls", set_urls, AT(initial_advertise_peer_urls),
     "http://localhost:2380", "addresses that the other members reach this one at"},
    {"initial-cluster", set_text, AT(initial_cluster), "NAME=initial-advertise-peer-urls",
     "the members of a new cluster: NAME=URL,NAME=URL"},
    {"initial-cluster-state", set_state, 0, "new",
     "\"new\", or \"existing\" to join a cluster that has added this member"},
    {"initial-cluster-token", set_text, AT(token), "etcd-cluster",
     "tells clusters with the same addresses apart"},
    {"heartbeat-interval", set_number, AT(heartbeat_ms), "100", "milliseconds"},
    {"election-timeout", set_number, AT(election_ms), "1000", "milliseconds"},
    {"snapshot-count", set_number, AT(snapshot_count), "10000",
     "log entries kept for members that lag"},
    {"quota-backend-bytes", set_quota, 0, "0 (2 GiB)", "largest size of the store"},
    {"auto-compaction-mode", set_mode, 0, "periodic", "\"periodic\" or \"revision\""},
    {"auto-compaction-retention", set_retention, 0, "0 (off)",
     "history kept: a duration (\"1h30m\", a number is hours) or a number of revisions"},
    {"scrub-interval", set_scrub, 0, "1h",
     "store and log are read through for damage in this time; 0: never"},
    {"max-request-bytes", set_size, AT(max_request_bytes), "1572864", "largest request"},
    {"max-txn-ops", set_size, AT(max_txn_ops), "128", "most operations in one transaction"},
    {"log-level", set_log_level, 0, "info", "debug, info, warn or error"},
    {"rescue", set_rescue, 0, NULL,
     "NEWDIR: save what can be read of a damaged --data-dir into it, as a member alone, and end"},
    {"restore", set_restore, 0, NULL,
     "FILE: make --data-dir of a snapshot, as a member of a new cluster (--name, "
     "--initial-cluster, ...), and end"},
    {"help", set_help, 0, NULL, "this text", true},
    {"version", set_version, 0, NULL, "the version", true},
};

/* etcd's flags that are set in many unit files and scripts. */
static const struct flag foreign_flags[] = {
    {"logger", set_no_effect, 0, NULL, "there is one log format"},
    {"log-outputs", set_no_effect, 0, NULL, "the log goes to standard error"},
    {"strict-reconfig-check", set_no_effect, 0, NULL, "it is always on", true},
    {"pre-vote", set_no_effect, 0, NULL, "it is always on", true},
    {"max-snapshots", set_no_effect, 0, NULL, "there are no snapshot files"},
    {"max-wals", set_no_effect, 0, NULL, "log segments are recycled"},
    {"enable-v2", refuse, 0, NULL, "there is no v2 API", true},
    {"enable-pprof", refuse, 0, NULL, "it is of etcd's runtime", true},
    {"config-file", refuse, 0, NULL, "use flags or QUORUMD_ variables"},
    {"auth-token", refuse, 0, NULL, "there is no authentication; leave the flag out"},
    {"listen-metrics-urls", refuse, 0, NULL, "there is no metrics port; leave the flag out"},
    {"discovery", refuse, 0, NULL, "list the members in --initial-cluster"},
    {"discovery-srv", refuse, 0, NULL, "list the members in --initial-cluster"},
    {"wal-dir", refuse, 0, NULL, "the log is in the data directory; mount a disk there"},
    {"force-new-cluster", refuse, 0, NULL, "start with a new data directory and a backup", true},
    {"cert-file", refuse, 0, NULL, TLS},
    {"key-file", refuse, 0, NULL, TLS},
    {"trusted-ca-file", refuse, 0, NULL, TLS},
    {"client-cert-auth", refuse, 0, NULL, TLS, true},
    {"client-crl-file", refuse, 0, NULL, TLS},
    {"auto-tls", refuse, 0, NULL, TLS, true},
    {"peer-cert-file", refuse, 0, NULL, TLS},
    {"peer-key-file", refuse, 0, NULL, TLS},
    {"peer-trusted-ca-file", refuse, 0, NULL, TLS},
    {"peer-client-cert-auth", refuse, 0, NULL, TLS, true},
    {"peer-cert-allowed-cn", refuse, 0, NULL, TLS},
    {"peer-auto-tls", refuse, 0, NULL, TLS, true},
    {"cipher-suites", refuse, 0, NULL, TLS},
};

static const struct flag *find_flag(const char *name, size_t n)
{
    for (size_t i = 0; i < ARRAY_LEN(flags); i++)
        if (strlen(flags[i].name) == n && !memcmp(flags[i].name, name, n))
            return &flags[i];
    for (size_t i = 0; i < ARRAY_LEN(foreign_flags); i++)
        if (strlen(foreign_flags[i].name) == n && !memcmp(foreign_flags[i].name, name, n))
            return &foreign_flags[i];
    return NULL;
}

/* ---- Durations ----------------------------------------------------------------------------------- */

static uint64_t unit_ms(const char *text, size_t *ret_n)
{
    static const struct {
        const char *name;
        uint64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        *ret_n = strlen(units[i].name);
        if (!strncmp(text, units[i].name, *ret_n))
            return units[i].ms;
    }
    return 0;
}

enum errc config_duration(const char *text, uint64_t *ret_ms)
{
    uint64_t sum = 0;
    if (!parse_number(text, &sum)) {
        if (sum > UINT32_MAX)
            return ERR_INVALID;
        *ret_ms = sum * 3600000;
        return ERR_OK;
    }
    while (*text) {
        char *end;
        size_t n;
        double value = strtod(text, &end);
        if (!isdigit((unsigned char)*text) || end == text || value > UINT32_MAX)
            return ERR_INVALID;
        uint64_t ms = unit_ms(end, &n);
        if (ms == 0)
            return ERR_INVALID;
        sum += (uint64_t)(value * (double)ms);
        text = end + n;
    }
    *ret_ms = sum;
    return ERR_OK;
}

static enum errc set_retention(struct config *c, const struct flag *flag, const char *value,
                               struct error *err)
{
    uint64_t n;
    if (c->server.compaction_mode == SERVER_COMPACTION_REVISION) {
        if (parse_number(value, &n))
            return bad_value(flag, value, "a number of revisions", err);
    } else if (!*value || config_duration(value, &n)) {
        return bad_value(flag, value, "a duration such as 1h30m, or a number of hours", err);
    }
    c->server.compaction_retention = n;
    return ERR_OK;
}

/* ---- Sources ------------------------------------------------------------------------------------- */

/* "listen-client-urls" -> "QUORUMD_LISTEN_CLIENT_URLS" */
static void variable_name(const struct flag *flag, char ret_name[64])
{
    size_t n = (size_t)snprintf(ret_name, 64, ENV_PREFIX "%s", flag->name);
    for (size_t i = 0; i < n; i++)
        ret_name[i] = ret_name[i] == '-' ? '_' : (char)toupper((unsigned char)ret_name[i]);
}

static const struct flag *flag_of_variable(const char *variable, size_t n)
{
    char name[64];
    if (n >= sizeof(name) || n <= strlen(ENV_PREFIX))
        return NULL;
    n -= strlen(ENV_PREFIX);
    for (size_t i = 0; i < n; i++) {
        char ch = variable[strlen(ENV_PREFIX) + i];
        name[i] = ch == '_' ? '-' : (char)tolower((unsigned char)ch);
    }
    return find_flag(name, n);
}

/* A flag's final text: set only after all sources were read, the last one wins. */
struct setting {
    const struct flag *flag;
    const char *value;
    const char *variable; /* NULL: from the command line */
};

struct settings {
    struct setting list[ARRAY_LEN(flags) + ARRAY_LEN(foreign_flags)];
    size_t count;
};

static void settings_add(struct settings *s, const struct flag *flag, const char *value,
                         const char *variable)
{
    for (size_t i = 0; i < s->count; i++) {
        if (s->list[i].flag == flag) {
            s->list[i] = (struct setting){flag, value, variable};
            return;
        }
    }
    s->list[s->count++] = (struct setting){flag, value, variable};
}

static void read_environment(struct config *c, char *const *environment, struct settings *s)
{
    for (; *environment; environment++) {
        const char *equals = strchr(*environment, '=');
        if (strncmp(*environment, ENV_PREFIX, strlen(ENV_PREFIX)) || !equals)
            continue;
        const struct flag *flag = flag_of_variable(*environment, (size_t)(equals - *environment));
        if (flag && flag->default_text)
            settings_add(s, flag, equals + 1, *environment);
        else if (flag && flag->set == refuse)
            settings_add(s, flag, equals + 1, *environment);
        else
            buf_printf(&c->notes, "unrecognized environment variable %.*s\n",
                       (int)(equals - *environment), *environment);
    }
}

static enum errc read_arguments(int argc, char *const *argv, struct settings *s, struct error *err)
{
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (!strcmp(arg, "-h"))
            arg = "--help";
        if (arg[0] != '-')
            return error_set(err, ERR_INVALID, "'%s' is not a valid flag: flags begin with --",
                             arg);
        const char *name = arg + 1 + (arg[1] == '-');
        size_t n = strcspn(name, "=");
        const struct flag *flag = find_flag(name, n);
        if (!flag)
            return error_set(err, ERR_INVALID,
                             "unknown flag --%.*s: see quorumd --help for all there are", (int)n,
                             name);
        if (name[n] == '=')
            settings_add(s, flag, name + n + 1, NULL);
        else if (flag->is_bool)
            settings_add(s, flag, "true", NULL);
        else if (i + 1 < argc)
            settings_add(s, flag, argv[++i], NULL);
        else
            return error_set(err, ERR_INVALID, "--%s needs a value", flag->name);
    }
    return ERR_OK;
}

static enum errc apply_setting(struct config *c, const struct setting *setting, struct error *err)
{
    struct error why;
    char variable[64];
    enum errc e = setting->flag->set(c, setting->flag, setting->value, &why);
    variable_name(setting->flag, variable);
    if (e)
        error_set(err, e, "%s%s%s", setting->variable ? variable : "",
                  setting->variable ? ": " : "", why.message);
    return e;
}

enum errc config_parse(struct config *c, int argc, char *const *argv, char *const *environment,
                       struct error *err)
{
    struct settings settings = {0};
    *c = (struct config){.log_level = LOG_INFO};
    server_config_defaults(&c->server);
    read_environment(c, environment, &settings);
    enum errc e = read_arguments(argc, argv, &settings, err);
    /* What a retention counts is up to the mode: that goes first. */
    for (size_t i = 0; !e && i < settings.count; i++)
        if (settings.list[i].flag->set == set_mode)
            e = apply_setting(c, &settings.list[i], err);
    for (size_t i = 0; !e && i < settings.count; i++)
        e = apply_setting(c, &settings.list[i], err);
    if (e || c->action == CONFIG_HELP || c->action == CONFIG_VERSION)
        return e;
    return server_config_check(&c->server, err);
}

void config_help(struct buf *out)
{
    buf_printf(out, "Usage: quorumd [--FLAG=VALUE]...\n\n"
                    "A member of a replicated key-value store that speaks etcd's v3 API.\n"
                    "Each flag can be given as an environment variable too: --data-dir is "
                    "QUORUMD_DATA_DIR; the flag wins.\n\n");
    for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
        buf_printf(out, "  --%-29s %s\n", flags[i].name, flags[i].help);
        if (flags[i].default_text)
            buf_printf(out, "  %-31s default: %s\n", "", flags[i].default_text);
    }
}

void config_free(struct config *c)
{
    for (size_t i = 0; i < c->owned_count; i++)
        free(c->owned[i]);
    free(c->owned);
    buf_free(&c->notes);
    *c = (struct config){0};
}
