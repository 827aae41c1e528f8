#include "tests/sim/trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/error.h"
#include "lib/base/memory.h"

typedef unsigned long long ull;

static bool is_landmark(enum trace_sort sort)
{
    return sort == TRACE_FAULT || sort == TRACE_REIGN || sort == TRACE_LINK;
}

enum trace_sort trace_sort_of(const struct trace_line *l)
{
    return l->format[0] && strchr("!=+>?*.", l->format[0]) ? (enum trace_sort)l->format[0]
                                                           : TRACE_PLAIN;
}

const struct trace_line *trace_add(struct trace *t, uint64_t at, const char *format,
                                   const uint64_t args[TRACE_ARGS])
{
    bool landmark = is_landmark((enum trace_sort)format[0]);
    struct trace_line *l = landmark ? &t->landmarks[t->landmark_count++ % TRACE_LANDMARKS]
                                    : &t->recent[t->recent_count++ % TRACE_RECENT];
    l->at = at;
    l->seq = t->seq++;
    l->format = format;
    memcpy(l->args, args, sizeof(l->args));
    return l;
}

uint64_t trace_file(struct trace *t, const char *path)
{
    static const char common[] = "data/member/";
    size_t n = strlen(path);
    if (strncmp(path, common, sizeof(common) - 1) == 0) {
        path += sizeof(common) - 1;
        n -= sizeof(common) - 1;
    }
    if (n == 0 || n >= TRACE_NAME_MAX)
        return 0;
    uint64_t h = n;
    for (size_t i = 0; i < n; i++)
        h = h * 31 + (unsigned char)path[i];
    size_t at = (size_t)(h ^ h >> 8) % TRACE_FILES;
    for (; t->files[at][0]; at = (at + 1) % TRACE_FILES) {
        if (memcmp(t->files[at], path, n + 1) == 0)
            return at + 1;
    }
    if (t->file_count == TRACE_FILES / 2)
        return 0;
    t->file_count++;
    memcpy(t->files[at], path, n + 1);
    return at + 1;
}

/* ---- words -------------------------------------------------------------------------------------- */

/* The text up to the next number of the format, and what that is ('\0': the end). */
static char next_directive(const char **format, const char **ret_text, size_t *ret_n)
{
    const char *p = *format;
    *ret_text = p;
    while (*p && *p != '%')
        p++;
    *ret_n = (size_t)(p - *ret_text);
    if (!*p) {
        *format = p;
        return '\0';
    }
    p++;
    bool is_long = *p == 'l' && p[1] == 'l'; /* printf's, else a lease */
    p += is_long ? 2 : 0;
    char c = *p;
    *format = *p ? p + 1 : p;
    return is_long && (c == 'd' || c == 'u') ? (c == 'd' ? 'n' : 'u') : c;
}

static const char *words(const struct trace_line *l)
{
    return l->format + (trace_sort_of(l) != TRACE_PLAIN);
}

static enum trace_field field_of(char directive)
{
    static const struct {
        char directive;
        enum trace_field field;
    } table[] = {
        {'m', FIELD_MEMBER},       {'i', FIELD_INDEX}, {'j', FIELD_INDEX_END},
        {'a', FIELD_INDEX_UP_TO},  {'t', FIELD_TERM},  {'k', FIELD_KEY},
        {'r', FIELD_REVISION},     {'l', FIELD_LEASE}, {'w', FIELD_WATCH},
        {'s', FIELD_REVISION_END}, {'v', FIELD_VALUE}, {'c', FIELD_CLIENT},
        {'f', FIELD_FILE},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        if (table[i].directive == directive)
            return table[i].field;
    }
    return FIELD_OTHER;
}

size_t trace_fields(const struct trace_line *l, enum trace_field fields[TRACE_ARGS])
{
    const char *format = words(l), *text;
    size_t n = 0, length;
    char directive;
    while (n < TRACE_ARGS && (directive = next_directive(&format, &text, &length)))
        fields[n++] = field_of(directive);
    return n;
}

static size_t print_members(uint64_t bits, char *out, size_t size)
{
    size_t n = 0;
    for (unsigned id = 1; id < 64 && n < size; id++) {
        if (bits >> id & 1)
            n += (size_t)snprintf(out + n, size - n, "%sn%u", n ? " " : "", id);
    }
    if (n == 0)
        n = (size_t)snprintf(out, size, "nobody");
    return n < size ? n : size - 1;
}

static size_t print_number(const struct trace *t, char directive, uint64_t v, char *out,
                           size_t size)
{
    int n;
    switch (directive) {
    case 'm':
        n = snprintf(out, size, "n%llu", (ull)v);
        break;
    case 'c':
        n = snprintf(out, size, "c%llu", (ull)v);
        break;
    case 'k':
        n = snprintf(out, size, "k%03llu", (ull)v);
        break;
    case 'e':
        n = snprintf(out, size, "%s", v == ERR_OK ? "done" : errc_text((enum errc)v));
        break;
    case 'd':
        n = snprintf(out, size, "%llu.%03llu ms", (ull)(v / 1000000), (ull)(v / 1000 % 1000));
        break;
    case 'y':
        n = snprintf(out, size, "%s", v ? "yes" : "no");
        break;
    case 'f':
        n = snprintf(out, size, "%s", v ? t->files[v - 1] : "a file");
        break;
    case 'g':
        return print_members(v, out, size);
    case 'x':
        n = snprintf(out, size, "%llx", (ull)v);
        break;
    case 'n':
        n = snprintf(out, size, "%lld", (long long)v);
        break;
    default:
        n = snprintf(out, size, "%llu", (ull)v);
    }
    return n > 0 ? ((size_t)n < size ? (size_t)n : size - 1) : 0;
}

void trace_text(const struct trace *t, const struct trace_line *l, char out[TRACE_TEXT_MAX])
{
    const char *format = words(l), *text;
    size_t at = 0, n;
    for (size_t arg = 0;; arg++) {
        char directive = next_directive(&format, &text, &n);
        n = n < TRACE_TEXT_MAX - 1 - at ? n : TRACE_TEXT_MAX - 1 - at;
        memcpy(out + at, text, n);
        at += n;
        if (!directive || arg == TRACE_ARGS || at == TRACE_TEXT_MAX - 1)
            break;
        at += print_number(t, directive, l->args[arg], out + at, TRACE_TEXT_MAX - at);
    }
    out[at] = '\0';
}

/* ---- all of them -------------------------------------------------------------------------------- */

static size_t ring_list(const struct trace_line *ring, size_t cap, uint64_t ever,
                        const struct trace_line **out)
{
    uint64_t have = ever < cap ? ever : cap;
    for (uint64_t i = 0; i < have; i++)
        out[i] = &ring[(ever - have + i) % cap];
    return (size_t)have;
}

static int by_seq(const void *a, const void *b)
{
    const struct trace_line *const *x = a, *const *y = b;
    return (*x)->seq < (*y)->seq ? -1 : (*x)->seq > (*y)->seq;
}

const struct trace_line **trace_lines(const struct trace *t, size_t *ret_count)
{
    const struct trace_line **all = xcalloc(TRACE_RECENT + TRACE_LANDMARKS, sizeof(*all));
    size_t n = ring_list(t->recent, TRACE_RECENT, t->recent_count, all);
    n += ring_list(t->landmarks, TRACE_LANDMARKS, t->landmark_count, all + n);
    qsort(all, n, sizeof(*all), by_seq);
    *ret_count = n;
    return all;
}
