#include "lib/rpc/status.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>

/* "TimeoutValue: positive integer as ASCII string of at most 8 digits". */
#define TIMEOUT_DIGITS_MAX 8
#define TIMEOUT_VALUE_MAX 99999999u

void status_percent_encode(struct buf *out, const char *text)
{
    static const char hex[] = "0123456789ABCDEF";
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p >= 0x20 && *p <= 0x7E && *p != '%') {
            buf_append(out, p, 1);
        } else {
            char escape[3] = {'%', hex[*p >> 4], hex[*p & 15]};
            buf_append(out, escape, 3);
        }
    }
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void status_percent_decode(struct bytes text, char *ret_text, size_t size)
{
    size_t out = 0;
    for (size_t i = 0; i < text.n && out + 1 < size; i++) {
        int c = text.p[i];
        if (c == '%' && i + 2 < text.n && hex_digit(text.p[i + 1]) >= 0 &&
            hex_digit(text.p[i + 2]) >= 0) {
            c = hex_digit(text.p[i + 1]) << 4 | hex_digit(text.p[i + 2]);
            i += 2;
        }
        ret_text[out++] = (char)c;
    }
    ret_text[out] = 0;
}

bool status_timeout_parse(struct bytes text, uint64_t *ret_ms)
{
    if (text.n < 2 || text.n > TIMEOUT_DIGITS_MAX + 1)
        return false;
    uint64_t value = 0;
    for (size_t i = 0; i + 1 < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9')
            return false;
        value = value * 10 + (text.p[i] - '0');
    }
    switch (text.p[text.n - 1]) {
    case 'H':
        *ret_ms = value * 3600 * 1000;
        return true;
    case 'M':
        *ret_ms = value * 60 * 1000;
        return true;
    case 'S':
        *ret_ms = value * 1000;
        return true;
    case 'm':
        *ret_ms = value;
        return true;
    case 'u':
        *ret_ms = (value + 999) / 1000;
        return true;
    case 'n':
        *ret_ms = (value + 999999) / 1000000;
        return true;
    }
    return false;
}

void status_timeout_format(uint64_t ms, char ret_text[STATUS_TIMEOUT_TEXT_MAX])
{
    uint64_t seconds = ms / 1000 + (ms % 1000 != 0), hours = seconds / 3600 + 1;
    if (ms <= TIMEOUT_VALUE_MAX)
        snprintf(ret_text, STATUS_TIMEOUT_TEXT_MAX, "%um", (unsigned)ms);
    else if (seconds <= TIMEOUT_VALUE_MAX)
        snprintf(ret_text, STATUS_TIMEOUT_TEXT_MAX, "%uS", (unsigned)seconds);
    else
        snprintf(ret_text, STATUS_TIMEOUT_TEXT_MAX, "%uH",
                 (unsigned)(hours < TIMEOUT_VALUE_MAX ? hours : TIMEOUT_VALUE_MAX));
}

int status_code_parse(struct bytes text)
{
    int code = 0;
    if (text.n == 0 || text.n > 2)
        return GRPC_UNKNOWN;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9')
            return GRPC_UNKNOWN;
        code = code * 10 + (text.p[i] - '0');
    }
    return code <= GRPC_UNAUTHENTICATED ? code : GRPC_UNKNOWN;
}

int status_of_http(int http_status)
{
    switch (http_status) {
    case 400:
        return GRPC_INTERNAL;
    case 401:
        return GRPC_UNAUTHENTICATED;
    case 403:
        return GRPC_PERMISSION_DENIED;
    case 404:
        return GRPC_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return GRPC_UNAVAILABLE;
    }
    return GRPC_UNKNOWN;
}

int status_of_reset(uint32_t http2_error)
{
    switch (http2_error) {
    case NGHTTP2_REFUSED_STREAM:
        return GRPC_UNAVAILABLE;
    case NGHTTP2_CANCEL:
        return GRPC_CANCELLED;
    case NGHTTP2_ENHANCE_YOUR_CALM:
        return GRPC_RESOURCE_EXHAUSTED;
    case NGHTTP2_INADEQUATE_SECURITY:
        return GRPC_PERMISSION_DENIED;
    }
    return GRPC_INTERNAL;
}
