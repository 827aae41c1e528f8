/* The texts of headers, message framing, base64, and the heap of deadlines: all without a socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/memory.h"
#include "lib/rpc/deadline.h"
#include "lib/rpc/frame.h"
#include "lib/rpc/metadata.h"
#include "lib/rpc/status.h"

static void check_encoded(const char *text, const char *expected)
{
    struct buf b = {0};
    char back[256];
    status_percent_encode(&b, text);
    assert_int_equal(b.n, strlen(expected));
    assert_memory_equal(b.p, expected, b.n);
    status_percent_decode(buf_bytes(&b), back, sizeof back);
    assert_string_equal(back, text);
    buf_free(&b);
}

static void test_percent(void **state)
{
    char text[8];
    (void)state;
    check_encoded("etcdserver: no leader", "etcdserver: no leader");
    check_encoded("100 %\n\x7f\xc3\xa9", "100 %25%0A%7F%C3%A9");
    /* "MUST NOT error if the value is invalid": what is no escape stays. */
    status_percent_decode(bytes_str("%zz%4%"), text, sizeof text);
    assert_string_equal(text, "%zz%4%");
    status_percent_decode(bytes_str("%41%6a%6A"), text, sizeof text);
    assert_string_equal(text, "Ajj");
    status_percent_decode(bytes_str("0123456789"), text, sizeof text);
    assert_string_equal(text, "0123456");
    status_percent_decode(BYTES_EMPTY, text, sizeof text);
    assert_string_equal(text, "");
}

static void test_timeout(void **state)
{
    static const struct {
        const char *text;
        uint64_t ms;
    } good[] = {{"1H", 3600000},    {"2M", 120000},
                {"3S", 3000},       {"4m", 4},
                {"5u", 1},          {"1001u", 2},
                {"6n", 1},          {"0n", 0},
                {"4999876u", 5000}, {"99999999H", 99999999ull * 3600000}};
    static const char *const bad[] = {"",     "1",   "S",  "123456789S", "-1S",
                                      "1.5S", " 1S", "1s", "1 S"};
    uint64_t ms;
    char text[STATUS_TIMEOUT_TEXT_MAX];
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_true(status_timeout_parse(bytes_str(good[i].text), &ms));
        assert_int_equal(ms, good[i].ms);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(status_timeout_parse(bytes_str(bad[i]), &ms));
    for (uint64_t t = 1; t < UINT64_MAX / 7; t *= 7) { /* formats to something not shorter */
        status_timeout_format(t, text);
        assert_true(status_timeout_parse(bytes_str(text), &ms));
        assert_true(ms >= t || t > 99999999ull * 3600000);
        if (t <= 99999999)
            assert_int_equal(ms, t);
    }
}

static void test_codes(void **state)
{
    (void)state;
    assert_int_equal(status_code_parse(bytes_str("0")), 0);
    assert_int_equal(status_code_parse(bytes_str("16")), 16);
    assert_int_equal(status_code_parse(bytes_str("17")), GRPC_UNKNOWN);
    assert_int_equal(status_code_parse(bytes_str("-1")), GRPC_UNKNOWN);
    assert_int_equal(status_code_parse(bytes_str("")), GRPC_UNKNOWN);
    assert_int_equal(status_code_parse(bytes_str("100000000000")), GRPC_UNKNOWN);
    assert_int_equal(status_of_http(503), GRPC_UNAVAILABLE);
    assert_int_equal(status_of_http(404), GRPC_UNIMPLEMENTED);
    assert_int_equal(status_of_http(500), GRPC_UNKNOWN);
}

static void test_base64(void **state)
{
    static const char *const bad[] = {"A", "AAAAA", "AA*A", "AA A", "=", "AA=A", "====", "A==="};
    struct buf text = {0}, back = {0};
    uint8_t data[64];
    (void)state;
    for (size_t n = 0; n <= sizeof data; n++) {
        text.n = back.n = 0;
        for (size_t i = 0; i < n; i++)
            data[i] = (uint8_t)(i * 151 + n);
        base64_encode(&text, bytes_of(data, n));
        assert_int_equal(text.n, (n * 4 + 2) / 3);
        assert_true(base64_decode(&back, buf_bytes(&text)));
        assert_true(bytes_equal(buf_bytes(&back), bytes_of(data, n)));
        while (text.n % 4)
            buf_append(&text, "=", 1);
        back.n = 0;
        assert_true(base64_decode(&back, buf_bytes(&text)));
        assert_true(bytes_equal(buf_bytes(&back), bytes_of(data, n)));
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (base64_decode(&back, bytes_str(bad[i])))
            fail_msg("accepted: %s", bad[i]);
    buf_free(&text);
    buf_free(&back);
}

static void test_metadata(void **state)
{
    struct metadata m = {0};
    (void)state;
    assert_null(metadata_get(&m, "a").p);
    assert_true(metadata_add(&m, bytes_str("a"), bytes_str("")));
    assert_true(metadata_add(&m, bytes_str("ab"), bytes_str("1")));
    assert_true(metadata_add(&m, bytes_str("ab"), bytes_str("2")));
    assert_true(metadata_add(&m, bytes_str("x-bin"), bytes_str("QUI,QQ==")));
    assert_false(metadata_add(&m, bytes_str("y-bin"), bytes_str("!")));
    assert_non_null(metadata_get(&m, "a").p);
    assert_int_equal(metadata_get(&m, "a").n, 0);
    assert_true(bytes_equal(metadata_get(&m, "ab"), bytes_str("1")));
    assert_true(bytes_equal(metadata_get(&m, "x-bin"), bytes_str("AB")));
    assert_null(metadata_get(&m, "y-bin").p);
    metadata_free(&m);
}

/* Messages of all sizes cut at every place give the same messages. */
static void test_frames(void **state)
{
    struct buf wire = {0};
    uint8_t message[300], prefix[FRAME_PREFIX];
    static const size_t sizes[] = {0, 1, 5, 300, 0, 0, 17};
    (void)state;
    memset(message, 'm', sizeof message);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        message[0] = (uint8_t)i;
        frame_prefix(prefix, sizes[i]);
        buf_append(&wire, prefix, sizeof prefix);
        buf_append(&wire, message, sizes[i]);
    }
    for (size_t cut = 1; cut <= wire.n; cut++) {
        struct frame_reader r = {.message_max = 300};
        struct bytes got;
        size_t count = 0;
        for (size_t at = 0; at < wire.n; at += cut) {
            /* On the heap, so that a use after the chunk's life is seen by the sanitizer. */
            size_t n = wire.n - at < cut ? wire.n - at : cut;
            uint8_t *chunk = bytes_dup(bytes_of(wire.p + at, n));
            frame_feed(&r, bytes_of(chunk, n));
            bool hold = at / cut % 3 == 1; /* a pause: nothing is taken from this chunk now */
            while (!hold && frame_next(&r, &got) == FRAME_MESSAGE) {
                assert_int_equal(got.n, sizes[count]);
                if (got.n)
                    assert_int_equal(got.p[0], count);
                count++;
            }
            frame_keep(&r);
            free(chunk);
        }
        while (frame_next(&r, &got) == FRAME_MESSAGE)
            count++;
        assert_int_equal(count, ARRAY_LEN(sizes));
        assert_int_equal(frame_kept(&r), 0);
        frame_free(&r);
    }
    buf_free(&wire);
}

static void test_frame_limits(void **state)
{
    uint8_t prefix[FRAME_PREFIX];
    struct frame_reader r = {.message_max = 100};
    struct bytes got;
    (void)state;
    frame_prefix(prefix, 101);
    frame_feed(&r, bytes_of(prefix, 5));
    assert_int_equal(frame_next(&r, &got), FRAME_TOO_LARGE);
    assert_int_equal(got.n, 101);
    assert_int_equal(r.kept.cap, 0); /* nothing was set aside for it */
    frame_free(&r);

    frame_prefix(prefix, 100);
    prefix[0] = 1;
    frame_feed(&r, bytes_of(prefix, 3));
    assert_int_equal(frame_next(&r, &got), FRAME_MORE);
    frame_feed(&r, bytes_of(prefix + 3, 2));
    assert_int_equal(frame_next(&r, &got), FRAME_COMPRESSED);
    frame_free(&r);
}

/* ---- Deadlines --------------------------------------------------------------------------------- */

#define DEADLINES 500
struct timed {
    struct deadline d;
    bool fired;
};
static uint64_t last_at;
static int fired_count;

static void on_passed(struct deadline *d)
{
    struct timed *t = CONTAINER_OF(d, struct timed, d);
    assert_true(d->at >= last_at); /* in their order */
    last_at = d->at;
    t->fired = true;
    fired_count++;
}

static void on_deadlines_closed(struct deadlines *ds)
{
    ds->closed = NULL;
}

static void test_deadlines(void **state)
{
    static struct timed timed[DEADLINES];
    struct deadlines ds;
    uv_loop_t loop;
    (void)state;
    uv_loop_init(&loop);
    deadlines_init(&ds, &loop);
    uint64_t now = uv_now(&loop);
    int set = 0;
    for (int i = 0; i < DEADLINES; i++) {
        deadline_init(&timed[i].d, on_passed);
        deadline_set(&ds, &timed[i].d, now + (uint64_t)(i * 7919 % 40));
    }
    for (int i = 0; i < DEADLINES; i += 3)
        deadline_clear(&ds, &timed[i].d);
    for (int i = 0; i < DEADLINES; i += 6) /* moved, or set again */
        deadline_set(&ds, &timed[i].d, now + (uint64_t)(i * 104729 % 40));
    for (int i = 0; i < DEADLINES; i++)
        set += timed[i].d.place != 0;
    uv_run(&loop, UV_RUN_DEFAULT); /* ends: without deadlines no timer is left */
    assert_int_equal(fired_count, set);
    for (int i = 0; i < DEADLINES; i++)
        assert_int_equal(timed[i].fired, i % 3 != 0 || i % 6 == 0);
    deadlines_close(&ds, on_deadlines_closed);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_percent),      cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_codes),        cmocka_unit_test(test_base64),
        cmocka_unit_test(test_metadata),     cmocka_unit_test(test_frames),
        cmocka_unit_test(test_frame_limits), cmocka_unit_test(test_deadlines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
