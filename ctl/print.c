/* JSON of messages, tables, and numbers for people, as etcdctl's libraries print them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "ctl/ctl.h"
#include "lib/base/memory.h"

/* ---- JSON ---------------------------------------------------------------------------------------- */

void ctl_json_string(struct buf *b, const char *s, size_t n)
{
    buf_append(b, "\"", 1);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\')
            buf_printf(b, "\\%c", c);
        else if (c == '\n')
            buf_printf(b, "\\n");
        else if (c == '\t')
            buf_printf(b, "\\t");
        else if (c < 0x20 || c == '<' || c == '>' || c == '&')
            buf_printf(b, "\\u%04x", c);
        else
            buf_append(b, &c, 1);
    }
    buf_append(b, "\"", 1);
}

static void base64(struct buf *b, const uint8_t *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    buf_append(b, "\"", 1);
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) |
                     (i + 2 < n ? p[i + 2] : 0);
        char text[4] = {digits[v >> 18], digits[v >> 12 & 63],
                        i + 1 < n ? digits[v >> 6 & 63] : '=', i + 2 < n ? digits[v & 63] : '='};
        buf_append(b, text, 4);
    }
    buf_append(b, "\"", 1);
}

static size_t value_size(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    default:
        return 4;
    }
}

static bool is_empty(ProtobufCType type, const void *p)
{
    static const uint8_t zeros[8];
    if (type == PROTOBUF_C_TYPE_STRING)
        return *(char *const *)p == NULL || **(char *const *)p == 0;
    if (type == PROTOBUF_C_TYPE_BYTES)
        return ((const ProtobufCBinaryData *)p)->len == 0;
    if (type == PROTOBUF_C_TYPE_MESSAGE)
        return *(void *const *)p == NULL;
    return memcmp(p, zeros, value_size(type)) == 0;
}

static void print_value(struct buf *b, ProtobufCType type, const void *p)
{
    const ProtobufCBinaryData *data = p;
    switch (type) {
    case PROTOBUF_C_TYPE_STRING:
        ctl_json_string(b, *(char *const *)p, strlen(*(char *const *)p));
        break;
    case PROTOBUF_C_TYPE_BYTES:
        base64(b, data->data, data->len);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        ctl_json(b, *(ProtobufCMessage *const *)p);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        buf_printf(b, "%s", *(const protobuf_c_boolean *)p ? "true" : "false");
        break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        buf_printf(b, "%" PRIu64, *(const uint64_t *)p);
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        buf_printf(b, "%" PRId64, *(const int64_t *)p);
        break;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        buf_printf(b, "%" PRIu32, *(const uint32_t *)p);
        break;
    default: /* numbers of 32 bits and enums; no message of etcd's has others */
        buf_printf(b, "%" PRId32, *(const int32_t *)p);
    }
}

static void print_list(struct buf *b, const ProtobufCFieldDescriptor *f, const void *list, size_t n)
{
    buf_append(b, "[", 1);
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buf_append(b, ",", 1);
        print_value(b, f->type, (const char *)list + i * value_size(f->type));
    }
    buf_append(b, "]", 1);
}

void ctl_json(struct buf *b, const ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *d = message->descriptor;
    const char *separator = "";
    buf_append(b, "{", 1);
    for (unsigned i = 0; i < d->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        const char *p = (const char *)message + f->offset;
        bool list = f->label == PROTOBUF_C_LABEL_REPEATED;
        size_t n = list ? *(const size_t *)((const char *)message + f->quantifier_offset) : 0;
        if (list ? n == 0 : is_empty(f->type, p))
            continue;
        buf_printf(b, "%s\"%s\":", separator, f->name);
        separator = ",";
        if (list)
            print_list(b, f, *(void *const *)p, n);
        else
            print_value(b, f->type, p);
    }
    buf_append(b, "}", 1);
}

void ctl_print_json(const ProtobufCMessage *message)
{
    struct buf b = {0};
    ctl_json(&b, message);
    printf("%.*s\n", (int)b.n, (const char *)b.p);
    buf_free(&b);
}

/* ---- Tables -------------------------------------------------------------------------------------- */

void ctl_table_add(struct ctl_table *t, char *cell)
{
    t->cells = xrealloc(t->cells, (t->rows + 1) * t->columns * sizeof(*t->cells));
    t->cells[t->rows * t->columns + t->at] = cell;
    if (++t->at == t->columns) {
        t->at = 0;
        t->rows++;
    }
}

/* Characters, not bytes: "µ" is one. */
static size_t width(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void print_rule(const size_t *widths, size_t columns)
{
    for (size_t c = 0; c < columns; c++) {
        printf("+");
        for (size_t i = 0; i < widths[c] + 2; i++)
            printf("-");
    }
    printf("+\n");
}

void ctl_table_print(struct ctl_table *t)
{
    size_t *widths = xcalloc(t->columns, sizeof(*widths));
    for (size_t c = 0; c < t->columns; c++) {
        widths[c] = width(t->headers[c]);
        for (size_t r = 0; r < t->rows; r++) {
            size_t n = width(t->cells[r * t->columns + c]);
            widths[c] = n > widths[c] ? n : widths[c];
        }
    }
    print_rule(widths, t->columns);
    for (size_t c = 0; c < t->columns; c++) { /* in the middle */
        size_t room = widths[c] - width(t->headers[c]);
        printf("| %*s%s%*s ", (int)(room / 2), "", t->headers[c], (int)(room - room / 2), "");
    }
    printf("|\n");
    print_rule(widths, t->columns);
    for (size_t r = 0; r < t->rows; r++) {
        for (size_t c = 0; c < t->columns; c++) { /* to the right */
            char *cell = t->cells[r * t->columns + c];
            printf("| %*s%s ", (int)(widths[c] - width(cell)), "", cell);
            free(cell);
        }
        printf("|\n");
    }
    print_rule(widths, t->columns);
    free(widths);
    free(t->cells);
}

/* ---- Numbers ------------------------------------------------------------------------------------- */

char *ctl_size_text(uint64_t bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    if (bytes < 10)
        return xasprintf("%" PRIu64 " B", bytes);
    double v = (double)bytes;
    size_t unit = 0;
    for (; v >= 1000 && unit + 1 < ARRAY_LEN(units); unit++)
        v /= 1000;
    v = (double)(uint64_t)(v * 10 + 0.5) / 10;
    return xasprintf(v < 10 ? "%.1f %s" : "%.0f %s", v, units[unit]);
}

char *ctl_duration_text(uint64_t ns)
{
    const char *unit = ns < 1000 ? "ns" : ns < 1000000 ? "µs" : ns < 1000000000 ? "ms" : "s";
    uint64_t one = ns < 1000 ? 1 : ns < 1000000 ? 1000 : ns < 1000000000 ? 1000000 : 1000000000;
    char fraction[16];
    int digits = ns < 1000 ? 0 : ns < 1000000 ? 3 : ns < 1000000000 ? 6 : 9;
    int n = snprintf(fraction, sizeof(fraction), "%0*" PRIu64, digits, ns % one);
    while (n > 0 && fraction[n - 1] == '0')
        fraction[--n] = 0;
    return n > 0 && digits > 0 ? xasprintf("%" PRIu64 ".%s%s", ns / one, fraction, unit)
                               : xasprintf("%" PRIu64 "%s", ns / one, unit);
}
