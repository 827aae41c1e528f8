/* quorumctl: the command line of a quorumfs cluster. */
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "ctl/ctl.h"
#include "lib/base/memory.h"

#define COMMAND_TIMEOUT_MS 5000 /* etcdctl's default */

static const struct ctl_command *const groups[] = {
    ctl_kv_commands,          ctl_member_commands,   ctl_endpoint_commands,
    ctl_maintenance_commands, ctl_snapshot_commands,
};

static void print_help(FILE *out)
{
    fprintf(out,
            "quorumctl %s: the command line of a quorumfs cluster, with etcdctl's commands\n\n"
            "usage: quorumctl [--endpoints URL,URL...] [--command-timeout SECONDS]\n"
            "                 [-w simple|json|table|fields] COMMAND ...\n\n",
            QUORUMFS_VERSION);
    for (size_t i = 0; i < ARRAY_LEN(groups); i++)
        for (const struct ctl_command *c = groups[i]; c->name; c++)
            fprintf(out, "  %-16s %-42s %s\n", c->name, c->synopsis, c->help);
    fprintf(out, "\nThe default endpoint is 127.0.0.1:2379. A snapshot is restored with quorumd "
                 "--restore.\n");
}

void ctl_usage(struct ctl *ctl, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("quorumctl: ", stderr);
    vfprintf(stderr, format, args);
    fputs("; see quorumctl --help\n", stderr);
    va_end(args);
    ctl->exit_code = 2;
    ctl->finished = true;
}

void ctl_finish(struct ctl *ctl, int exit_code)
{
    ctl->exit_code = exit_code;
    ctl->finished = true;
    uv_stop(&ctl->loop);
}

bool ctl_failed(struct ctl *ctl, const struct client_result *result)
{
    if (result->code == ERR_OK)
        return false;
    fprintf(stderr, "Error: %s\n",
            result->text && *result->text ? result->text : errc_text(result->code));
    ctl_finish(ctl, 1);
    return true;
}

static void drop_argument(struct ctl *ctl, int at)
{
    for (int i = at; i + 1 < ctl->argc; i++)
        ctl->argv[i] = ctl->argv[i + 1];
    ctl->argc--;
}

bool ctl_flag(struct ctl *ctl, const char *name, const char **ret_value)
{
    size_t length = strlen(name);
    for (int i = 0; i < ctl->argc && strcmp(ctl->argv[i], "--") != 0; i++) {
        const char *arg = ctl->argv[i];
        if (strncmp(arg, "--", 2) != 0 || strncmp(arg + 2, name, length) != 0)
            continue;
        const char *rest = arg + 2 + length;
        if (*rest == '=' && ret_value) {
            *ret_value = rest + 1;
        } else if (*rest == 0 && ret_value && i + 1 < ctl->argc) {
            *ret_value = ctl->argv[i + 1];
            drop_argument(ctl, i + 1);
        } else if (*rest != 0 || ret_value) {
            continue;
        }
        drop_argument(ctl, i);
        return true;
    }
    return false;
}

bool ctl_arguments(struct ctl *ctl, int count_min, int count_max)
{
    for (int i = 0; i < ctl->argc; i++) {
        if (strcmp(ctl->argv[i], "--") == 0) {
            drop_argument(ctl, i);
            break;
        }
        if (strncmp(ctl->argv[i], "--", 2) == 0) {
            ctl_usage(ctl, "unknown flag %s", ctl->argv[i]);
            return false;
        }
    }
    if (ctl->argc < count_min || ctl->argc > count_max) {
        ctl_usage(ctl, "%d arguments where %d to %d are wanted", ctl->argc, count_min, count_max);
        return false;
    }
    return true;
}

struct bytes ctl_prefix_end(struct arena *arena, struct bytes key)
{
    uint8_t *end = arena_alloc(arena, key.n + 1);
    if (key.n > 0)
        memcpy(end, key.p, key.n);
    for (size_t n = key.n; n > 0; n--) {
        if (end[n - 1] < 0xff) {
            end[n - 1]++;
            return bytes_of(end, n);
        }
    }
    end[0] = 0;
    return bytes_of(end, 1);
}

bool ctl_prints(struct ctl *ctl, bool table, bool fields)
{
    bool has = ctl->output == CTL_SIMPLE || ctl->output == CTL_JSON ||
               (ctl->output == CTL_TABLE ? table : fields);
    if (!has)
        ctl_usage(ctl, "%s not supported as output format",
                  ctl->output == CTL_TABLE ? "table" : "fields");
    return has;
}

/* The command that the first one or two arguments name; takes them out. */
static const struct ctl_command *find_command(struct ctl *ctl, const struct ctl_command *commands)
{
    for (const struct ctl_command *c = commands; c->name; c++) {
        const char *space = strchr(c->name, ' ');
        size_t first = space ? (size_t)(space - c->name) : strlen(c->name);
        if (strlen(ctl->argv[0]) != first || strncmp(ctl->argv[0], c->name, first) != 0)
            continue;
        if (space && (ctl->argc < 2 || strcmp(ctl->argv[1], space + 1) != 0))
            continue;
        int words = space ? 2 : 1;
        ctl->argv += words;
        ctl->argc -= words;
        return c;
    }
    return NULL;
}

struct client *ctl_connect(struct ctl *ctl, char *const *endpoints, size_t count)
{
    const char *urls[CLIENT_ENDPOINTS_MAX];
    char *made[CLIENT_ENDPOINTS_MAX];
    for (size_t i = 0; i < count; i++) {
        const char *e = endpoints[i];
        bool has_scheme = strstr(e, "://") != NULL || strncmp(e, "unix:", 5) == 0;
        urls[i] = made[i] = xasprintf("%s%s", has_scheme ? "" : "http://", e);
    }
    struct error err;
    struct client *c = NULL;
    struct client_config config = {
        .endpoints = urls, .endpoint_count = count, .timeout_ms = ctl->timeout_ms};
    if (client_new(&ctl->loop, &config, &c, &err) != ERR_OK)
        ctl_usage(ctl, "--endpoints: %s", err.message);
    for (size_t i = 0; i < count; i++)
        free(made[i]);
    return c;
}

static bool read_endpoints(struct ctl *ctl, const char *text)
{
    char *list = xstrdup(text), *save = NULL;
    bool fits = true;
    for (char *e = strtok_r(list, ",", &save); e && fits; e = strtok_r(NULL, ",", &save)) {
        fits = ctl->endpoint_count < CLIENT_ENDPOINTS_MAX;
        if (fits)
            ctl->endpoints[ctl->endpoint_count++] = xstrdup(e);
    }
    free(list);
    if (!fits)
        ctl_usage(ctl, "more than %d endpoints", CLIENT_ENDPOINTS_MAX);
    return fits;
}

static void run_command(struct ctl *ctl)
{
    const struct ctl_command *command = NULL;
    for (size_t i = 0; !command && i < ARRAY_LEN(groups); i++)
        command = find_command(ctl, groups[i]);
    if (!command) {
        ctl_usage(ctl, "unknown command '%s'", ctl->argv[0]);
        return;
    }
    ctl->client = ctl_connect(ctl, ctl->endpoints, ctl->endpoint_count);
    if (!ctl->client)
        return;
    if (command->run(ctl) && !ctl->finished)
        uv_run(&ctl->loop, UV_RUN_DEFAULT);
    client_free(ctl->client);
    while (uv_run(&ctl->loop, UV_RUN_DEFAULT) != 0)
        ;
}

static bool read_output(struct ctl *ctl)
{
    static const char *const names[] = {"simple", "json", "table", "fields"};
    const char *text = NULL;
    for (int i = 0; i < ctl->argc && !text; i++) { /* "-w json": the one short flag */
        if (strcmp(ctl->argv[i], "--") == 0)
            break;
        if (strcmp(ctl->argv[i], "-w") != 0 || i + 1 == ctl->argc)
            continue;
        text = ctl->argv[i + 1];
        drop_argument(ctl, i);
        drop_argument(ctl, i);
    }
    ctl_flag(ctl, "write-out", &text);
    for (size_t i = 0; text && i < ARRAY_LEN(names); i++) {
        if (strcmp(text, names[i]) == 0) {
            ctl->output = (enum ctl_output)i;
            return true;
        }
    }
    if (text)
        ctl_usage(ctl, "-w %s: not one of simple, json, table, fields", text);
    return !text;
}

int main(int argc, char **argv)
{
    struct ctl ctl = {
        .timeout_ms = COMMAND_TIMEOUT_MS, .argc = argc - 1, .argv = argv + 1, .exit_code = 1};
    const char *endpoints = getenv("QUORUMCTL_ENDPOINTS"), *timeout = NULL;
    ctl_flag(&ctl, "endpoints", &endpoints);
    if (ctl_flag(&ctl, "help", NULL) || ctl.argc == 0) {
        print_help(ctl.argc == 0 ? stderr : stdout);
        return ctl.argc == 0 ? 2 : 0;
    }
    if (ctl_flag(&ctl, "version", NULL)) {
        printf("quorumctl %s\n", QUORUMFS_VERSION);
        return 0;
    }
    if (ctl_flag(&ctl, "command-timeout", &timeout)) {
        char *end;
        double seconds = strtod(timeout, &end);
        if ((*end != 0 && strcmp(end, "s") != 0) || seconds <= 0 || seconds > 86400) {
            ctl_usage(&ctl, "--command-timeout %s: not a number of seconds", timeout);
            return ctl.exit_code;
        }
        ctl.timeout_ms = (uint64_t)(seconds * 1000);
    }
    if (!read_output(&ctl) ||
        !read_endpoints(&ctl, endpoints && *endpoints ? endpoints : "127.0.0.1:2379"))
        return ctl.exit_code;
    uv_loop_init(&ctl.loop);
    run_command(&ctl);
    uv_loop_close(&ctl.loop);
    for (size_t i = 0; i < ctl.endpoint_count; i++)
        free(ctl.endpoints[i]);
    return ctl.exit_code;
}
