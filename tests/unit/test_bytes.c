/* Slices, buffers, integers, arenas. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "lib/base/bytes.h"
#include "lib/base/list.h"
#include "lib/base/memory.h"

static void compares_by_bytes_then_length(void **state)
{
    (void)state;
    static const struct {
        struct bytes a, b;
        int order;
    } cases[] = {
        {{NULL, 0}, {NULL, 0}, 0},
        {{NULL, 0}, {(const uint8_t *)"a", 1}, -1},
        {{(const uint8_t *)"a", 1}, {(const uint8_t *)"ab", 2}, -1},
        {{(const uint8_t *)"b", 1}, {(const uint8_t *)"ab", 2}, 1},
        {{(const uint8_t *)"a\0b", 3}, {(const uint8_t *)"a\0c", 3}, -1},
        {{(const uint8_t *)"\xff", 1}, {(const uint8_t *)"a", 1}, 1}, /* unsigned */
        {{(const uint8_t *)"same", 4}, {(const uint8_t *)"same", 4}, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(bytes_compare(cases[i].a, cases[i].b), cases[i].order);
        assert_int_equal(bytes_compare(cases[i].b, cases[i].a), -cases[i].order);
        assert_int_equal(bytes_equal(cases[i].a, cases[i].b), cases[i].order == 0);
    }
    assert_true(bytes_starts_with(bytes_str("key"), BYTES_EMPTY));
    assert_true(bytes_starts_with(bytes_str("key"), bytes_str("ke")));
    assert_false(bytes_starts_with(bytes_str("ke"), bytes_str("key")));
}

static void dup_is_a_string_too(void **state)
{
    (void)state;
    uint8_t *copy = bytes_dup(bytes_of("abcdef", 3));
    assert_string_equal((char *)copy, "abc");
    free(copy);
    copy = bytes_dup(BYTES_EMPTY);
    assert_string_equal((char *)copy, "");
    free(copy);
}

static void buffer_grows_and_shrinks(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_append(&b, NULL, 0);
    assert_int_equal(b.n, 0);
    for (int i = 0; i < 1000; i++)
        buf_append(&b, "0123456789", 10);
    assert_int_equal(b.n, 10000);
    assert_memory_equal(b.p + 9990, "0123456789", 10);
    buf_consume(&b, 9995);
    assert_true(bytes_equal(buf_bytes(&b), bytes_str("56789")));
    buf_consume(&b, 5);
    assert_int_equal(b.n, 0);
    buf_free(&b);
    assert_null(b.p);
    assert_int_equal(b.cap, 0);
    buf_free(&b);
}

static void printf_appends_whatever_its_length(void **state)
{
    (void)state;
    struct buf b = {0};
    char *expected = xstrdup("");
    for (int i = 0; i < 300; i++) {
        buf_printf(&b, "%d,%s;", i, "text");
        char *longer = xasprintf("%s%d,%s;", expected, i, "text");
        free(expected);
        expected = longer;
    }
    assert_true(bytes_equal(buf_bytes(&b), bytes_str(expected)));
    buf_printf(&b, "%5000s", "x");
    assert_int_equal(b.n, strlen(expected) + 5000);
    assert_int_equal(b.p[b.n - 1], 'x');
    free(expected);
    buf_free(&b);
}

static void integers_have_their_byte_order(void **state)
{
    (void)state;
    uint8_t p[9] = {0};
    put_le32(p + 1, 0x81020304);
    assert_memory_equal(p + 1, "\x04\x03\x02\x81", 4);
    assert_true(get_le32(p + 1) == 0x81020304);
    put_be32(p + 1, 0x81020304);
    assert_memory_equal(p + 1, "\x81\x02\x03\x04", 4);
    assert_true(get_be32(p + 1) == 0x81020304);
    put_le64(p + 1, 0x8102030405060708);
    assert_memory_equal(p + 1, "\x08\x07\x06\x05\x04\x03\x02\x81", 8);
    assert_true(get_le64(p + 1) == 0x8102030405060708);
    put_be64(p + 1, 0x8102030405060708);
    assert_memory_equal(p + 1, "\x81\x02\x03\x04\x05\x06\x07\x08", 8);
    assert_true(get_be64(p + 1) == 0x8102030405060708);
}

static void arena_gives_zeroed_aligned_memory_of_any_size(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 0, 17, 4096, 100000, 3000, 5, 4095, 2049, 1};
    struct arena a = {0};
    unsigned char *p[ARRAY_LEN(sizes) * 20];
    for (size_t i = 0; i < ARRAY_LEN(p); i++) {
        size_t n = sizes[i % ARRAY_LEN(sizes)];
        p[i] = arena_alloc(&a, n);
        assert_int_equal((uintptr_t)p[i] % _Alignof(max_align_t), 0);
        for (size_t k = 0; k < n; k++)
            assert_int_equal(p[i][k], 0);
        memset(p[i], (int)i, n);
    }
    for (size_t i = 0; i < ARRAY_LEN(p); i++)
        for (size_t k = 0; k < sizes[i % ARRAY_LEN(sizes)]; k++)
            assert_int_equal(p[i][k], (unsigned char)i);
    arena_free(&a);
    assert_null(a.chunks);
    assert_non_null(arena_alloc(&a, 8));
    arena_free(&a);
}

struct item {
    int value;
    struct list link;
};

static void list_keeps_order_and_allows_removal_on_the_way(void **state)
{
    (void)state;
    struct list head;
    struct item items[4];
    list_init(&head);
    assert_true(list_empty(&head));
    for (int i = 0; i < 4; i++) {
        items[i].value = i;
        list_append(&head, &items[i].link);
    }
    int seen = 0;
    LIST_FOR_EACH_SAFE(it, tmp, &head)
    {
        struct item *item = CONTAINER_OF(it, struct item, link);
        assert_int_equal(item->value, seen++);
        if (item->value % 2)
            list_remove(it);
    }
    assert_int_equal(seen, 4);
    list_remove(&items[1].link); /* again: harmless */
    assert_ptr_equal(head.next, &items[0].link);
    assert_ptr_equal(head.next->next, &items[2].link);
    assert_ptr_equal(head.prev, &items[2].link);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compares_by_bytes_then_length),
        cmocka_unit_test(dup_is_a_string_too),
        cmocka_unit_test(buffer_grows_and_shrinks),
        cmocka_unit_test(printf_appends_whatever_its_length),
        cmocka_unit_test(integers_have_their_byte_order),
        cmocka_unit_test(arena_gives_zeroed_aligned_memory_of_any_size),
        cmocka_unit_test(list_keeps_order_and_allows_removal_on_the_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
