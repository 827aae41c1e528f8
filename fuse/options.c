#include "fuse/options.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/bytes.h"
#include "lib/base/memory.h"

const char options_usage[] =
    "usage: quorumfs SOURCE MOUNTPOINT [-f] [-d] [-o OPT,...]\n"
    "\n"
    "Shows the keys of a quorumd or etcd cluster as files.\n"
    "\n"
    "SOURCE  HOST[:PORT][,HOST[:PORT]...]:/PREFIX   a running cluster (port 2379)\n"
    "        FOLDER (./data, /var/lib/x)            runs a server of its own on it\n"
    "  -f    stay in the foreground, log to standard error\n"
    "  -d    log every request as well (implies -f)\n"
    "  -o    timeout=SECONDS        of what needs the cluster (5)\n"
    "        consistency=linearizable|cached\n"
    "        stale=allow|refuse     reads without a quorum: the last known state, or EAGAIN\n"
    "        cache=MIB              contents kept in memory (256)\n"
    "        local=PATTERN[:PATTERN...]  names that never leave this mount, instead of the "
    "default;\n"
    "                               local=none: no such names\n"
    "        append_idle=SECONDS    an open log is saved after this idle time (1)\n"
    "        uid=N,gid=N            owner of files without metadata (who mounts)\n"
    "        file_mode=OCTAL,dir_mode=OCTAL  their permissions (0644, 0755)\n"
    "        listen=URL             FOLDER: serve clients on this URL too (http://127.0.0.1:2379)\n"
    "        allow_other            other users may use the mount (default for root)\n"
    "        ro                     read-only\n"
    "  -h, --help; -V, --version\n";

/* Names that editors and tools make only to rename or delete them. */
static const char *const local_default[] = {
    "sed??????",             /* sed -i */
    ".*.??????",             /* rsync */
    "XX??????",              /* perl -i */
    ".*.sw?",                /* vim */
    ".*.sw?x",               /* vim, when it tries what the file system can do */
    "*.sw[a-p]",             /* vim */
    "4913",                  /* vim's try whether it may write */
    "*~",                    /* backups */
    ".#*",                   /* emacs' locks */
    "#*#",                   /* emacs' auto-saves */
    ".goutputstream-??????", /* GLib */
    ".nfs*",
};

static enum errc number(const char *name, const char *text, int base, double scale,
                        uint64_t *ret_value, struct error *err)
{
    char *end;
    double value = base == 8 ? (double)strtoul(text, &end, 8) : strtod(text, &end);
    if (!isdigit((unsigned char)*text) || *end || value < 0 || value * scale > 1e15)
        return error_set(err, ERR_INVALID, "option %s=%s: a number is expected", name, text);
    *ret_value = (uint64_t)(value * scale);
    return ERR_OK;
}

static enum errc add(struct options_list *list, const char *what, const char *item, size_t n,
                     struct error *err)
{
    if (list->count == OPTIONS_LIST_MAX)
        return error_set(err, ERR_INVALID, "%s: more than %d", what, OPTIONS_LIST_MAX);
    list->item[list->count++] = strndup(item, n);
    return ERR_OK;
}

static enum errc add_patterns(struct options *o, const char *text, struct error *err)
{
    if (o->local.count > 0 && o->local.item[0] == NULL)
        o->local.count = 0;
    if (strcmp(text, "none") == 0)
        return ERR_OK;
    while (*text) {
        size_t n = strcspn(text, ":");
        if (n && add(&o->local, "local=", text, n, err) != ERR_OK)
            return ERR_INVALID;
        text += n + (text[n] == ':');
    }
    return ERR_OK;
}

/* What mount(8) and fstab add, and what has no meaning for us. */
static bool ignored(const char *name)
{
    static const char *const names[] = {"rw",
                                        "dev",
                                        "nodev",
                                        "suid",
                                        "nosuid",
                                        "exec",
                                        "noexec",
                                        "auto",
                                        "noauto",
                                        "user",
                                        "nouser",
                                        "users",
                                        "defaults",
                                        "_netdev",
                                        "nofail",
                                        "relatime",
                                        "atime",
                                        "noatime",
                                        "nodiratime",
                                        "async",
                                        "sync",
                                        "dirsync",
                                        "default_permissions"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return strncmp(name, "x-", 2) == 0 || strncmp(name, "comment", 7) == 0;
}

static enum errc choice(const char *name, const char *value, const char *yes, const char *no,
                        bool *ret, struct error *err)
{
    if (strcmp(value, yes) != 0 && strcmp(value, no) != 0)
        return error_set(err, ERR_INVALID, "option %s=%s: %s or %s is expected", name, value, yes,
                         no);
    *ret = strcmp(value, yes) == 0;
    return ERR_OK;
}

static enum errc with_value(struct options *o, const char *name, const char *value,
                            struct error *err)
{
    static const struct {
        const char *name;
        int base;
        double scale;
    } numbers[] = {{"timeout", 10, 1000}, {"cache", 10, 1048576}, {"append_idle", 10, 1000},
                   {"uid", 10, 1},        {"gid", 10, 1},         {"file_mode", 8, 1},
                   {"dir_mode", 8, 1}};
    uint64_t values[ARRAY_LEN(numbers)] = {o->timeout_ms, o->cache_bytes, o->append_idle_ms, o->uid,
                                           o->gid,        o->file_mode,   o->dir_mode};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        if (strcmp(numbers[i].name, name) != 0)
            continue;
        enum errc code = number(name, value, numbers[i].base, numbers[i].scale, &values[i], err);
        if (code == ERR_OK && i == 0 && values[0] == 0)
            return error_set(err, ERR_INVALID, "option timeout=%s: more than 0 is expected", value);
        o->timeout_ms = values[0];
        o->cache_bytes = values[1];
        o->append_idle_ms = values[2];
        o->uid = (uint32_t)values[3];
        o->gid = (uint32_t)values[4];
        o->file_mode = (uint32_t)values[5] & 07777;
        o->dir_mode = (uint32_t)values[6] & 07777;
        return code;
    }
    if (strcmp(name, "consistency") == 0)
        return choice(name, value, "cached", "linearizable", &o->cached, err);
    if (strcmp(name, "stale") == 0)
        return choice(name, value, "allow", "refuse", &o->stale_allow, err);
    if (strcmp(name, "local") == 0)
        return add_patterns(o, value, err);
    if (strcmp(name, "listen") == 0)
        return add(&o->listen, "listen=", value, strlen(value), err);
    return error_set(err, ERR_INVALID, "unknown option %s (quorumfs --help lists them)", name);
}

static enum errc parse_option(struct options *o, char *text, struct error *err)
{
    char *equal = strchr(text, '=');
    if (ignored(text))
        return ERR_OK;
    if (equal) {
        *equal = 0;
        if (ignored(text))
            return ERR_OK;
        return with_value(o, text, equal + 1, err);
    }
    if (strcmp(text, "allow_other") == 0)
        o->allow_other = true;
    else if (strcmp(text, "ro") == 0)
        o->read_only = true;
    else if (*text)
        return error_set(err, ERR_INVALID, "unknown option %s (quorumfs --help lists them)", text);
    return ERR_OK;
}

/* ---- SOURCE ----------------------------------------------------------------------------------------- */

/* The URL of HOST[:PORT] (n bytes at host), NULL if it is none; the caller frees it. */
static char *endpoint_url(const char *host, size_t n)
{
    static const char scheme[] = "http://";
    struct bytes text = bytes_of(host, n);
    if (bytes_starts_with(text, bytes_str("unix:")) ||
        bytes_starts_with(text, bytes_str("https://")))
        return xasprintf("%.*s", (int)n, host);
    if (bytes_starts_with(text, bytes_str(scheme))) {
        host += sizeof(scheme) - 1;
        n -= sizeof(scheme) - 1;
    }
    const char *bracket = memchr(host, ']', n); /* of an IPv6 address, full of colons */
    const char *from = bracket ? bracket : host;
    const char *colon = memrchr(from, ':', n - (size_t)(from - host));
    if (n == 0 || (colon && colon + 1 == host + n))
        return NULL;
    return xasprintf("http://%.*s%s", (int)n, host, colon ? "" : ":2379");
}

static enum errc add_endpoint(struct options *o, const char *host, size_t n, struct error *err)
{
    char *url = endpoint_url(host, n);
    if (!url)
        return error_set(err, ERR_INVALID, "%s: HOST or HOST:PORT is expected before the prefix",
                         o->source);
    enum errc code = add(&o->endpoints, "endpoints", url, strlen(url), err);
    free(url);
    return code;
}

/* Where the prefix begins: behind the last colon that no port and no "//" follows; NULL: nowhere. */
static const char *find_prefix(const char *source)
{
    const char *found = NULL;
    for (const char *p = source; *p; p++)
        if (*p == ':' && (p[1] == 0 || (p[1] == '/' && p[2] != '/')))
            found = found ? found : p;
    return found;
}

static enum errc parse_source(struct options *o, struct error *err)
{
    const char *s = o->source;
    if (*s == '/' || *s == '.' || !strchr(s, ':')) {
        o->embedded = true;
        o->data_dir = xstrdup(s);
        o->prefix = xstrdup("/");
        return ERR_OK;
    }
    const char *colon = find_prefix(s);
    if (!colon)
        return error_set(err, ERR_INVALID,
                         "%s: the prefix is missing; write %s:/ for all keys that begin with /", s,
                         s);
    size_t n = strlen(colon + 1);
    bool slash = n > 0 && colon[n] == '/';
    o->prefix = xasprintf("%s%s", colon + 1, n == 0 || slash ? "" : "/");
    for (const char *host = s; host < colon;) {
        size_t length = strcspn(host, ",");
        if (host + length > colon)
            length = (size_t)(colon - host);
        enum errc code = add_endpoint(o, host, length, err);
        if (code != ERR_OK)
            return code;
        host += length + 1;
    }
    return ERR_OK;
}

/* ---- The command line --------------------------------------------------------------------------------- */

static enum errc parse_options(struct options *o, const char *list, struct error *err)
{
    char *copy = xstrdup(list), *rest = copy, *one;
    enum errc code = ERR_OK;
    while (code == ERR_OK && (one = strsep(&rest, ",")))
        code = parse_option(o, one, err);
    free(copy);
    return code;
}

static void defaults(struct options *o)
{
    *o = (struct options){.timeout_ms = 5000,
                          .cache_bytes = 256u << 20,
                          .append_idle_ms = 1000,
                          .uid = getuid(),
                          .gid = getgid(),
                          .file_mode = 0644,
                          .dir_mode = 0755,
                          .allow_other = geteuid() == 0};
    o->local.count = 1; /* one NULL: the default list */
}

static enum errc check_listen(const struct options *o, struct error *err)
{
    if (o->listen.count && !o->embedded)
        return error_set(err, ERR_INVALID,
                         "option listen=%s: only with a FOLDER as source, %s is a running cluster",
                         o->listen.item[0], o->source);
    return ERR_OK;
}

enum errc options_parse(int argc, char **argv, struct options *ret_options, struct error *err)
{
    struct options *o = ret_options;
    int c;
    defaults(o);
    static const char letters[] = "fdo:hVnsvw";
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0)
            argv[i] = (char *)"-h";
        else if (strcmp(argv[i], "--version") == 0)
            argv[i] = (char *)"-V";
        else if (strncmp(argv[i], "--", 2) == 0 && argv[i][2])
            return error_set(err, ERR_INVALID, "unknown option %s", argv[i]);
    }
    opterr = 0;
    while ((c = getopt(argc, argv, letters)) != -1) {
        if (c == 'f')
            o->foreground = true;
        else if (c == 'd')
            o->debug = o->foreground = true;
        else if (c == 'h')
            o->help = true;
        else if (c == 'V')
            o->version = true;
        else if (c == 'o' && parse_options(o, optarg, err) != ERR_OK)
            return ERR_INVALID;
        else if (c == '?')
            return error_set(err, ERR_INVALID, "unknown option -%c, or its value is missing",
                             optopt);
        /* n, s, v, w: of mount(8), without a meaning here */
    }
    if (o->help || o->version)
        return ERR_OK;
    if (argc - optind != 2)
        return error_set(err, ERR_INVALID, "SOURCE and MOUNTPOINT are expected");
    o->source = xstrdup(argv[optind]);
    o->mount_point = xstrdup(argv[optind + 1]);
    if (o->local.count == 1 && o->local.item[0] == NULL) {
        o->local.count = 0;
        for (size_t i = 0; i < ARRAY_LEN(local_default); i++)
            add(&o->local, "local=", local_default[i], strlen(local_default[i]), err);
    }
    enum errc code = parse_source(o, err);
    return code == ERR_OK ? check_listen(o, err) : code;
}
