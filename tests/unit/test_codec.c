/* Keys and paths map to each other, both ways, whatever the key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fuse/codec.h"
#include "lib/base/memory.h"

#define LITERAL(s) bytes_of(s, sizeof(s) - 1)

static void check_pair(struct bytes key, struct bytes want)
{
    struct buf path = {0}, back = {0};
    codec_key_to_path(key, &path);
    assert_int_equal(path.n, want.n);
    assert_memory_equal(path.p, want.p, want.n);
    assert_true(codec_path_to_key(buf_bytes(&path), &back));
    assert_int_equal(back.n, key.n);
    assert_memory_equal(back.p, key.p, key.n);
    buf_free(&path);
    buf_free(&back);
}

static void test_examples(void **state)
{
    (void)state;
    check_pair(LITERAL("nginx/nginx.conf"), LITERAL("nginx/nginx.conf"));
    check_pair(LITERAL("100%"), LITERAL("100%"));
    check_pair(LITERAL("a%20b"), LITERAL("a%20b"));
    check_pair(LITERAL("a//b"), LITERAL("a/%/b"));
    check_pair(LITERAL("/a/b"), LITERAL("%/a/b"));
    check_pair(LITERAL("a/"), LITERAL("a/%"));
    check_pair(LITERAL("a/../b"), LITERAL("a/%2E%2E/b"));
    check_pair(LITERAL("."), LITERAL("%2E"));
    check_pair(LITERAL("a\0b"), LITERAL("a%00b"));
    check_pair(LITERAL("%"), LITERAL("%25"));
    check_pair(LITERAL("%self"), LITERAL("%25self"));
    check_pair(LITERAL("%00"), LITERAL("%2500"));
    check_pair(LITERAL("%2500"), LITERAL("%252500"));
    check_pair(LITERAL("%41"), LITERAL("%41"));
    check_pair(LITERAL("%2e"), LITERAL("%2e"));
    check_pair(LITERAL("%~x"), LITERAL("%25~x"));
}

static void test_self(void **state)
{
    (void)state;
    struct buf key = {0};
    assert_true(codec_path_to_key(LITERAL("a/b/%self"), &key));
    assert_true(bytes_equal(buf_bytes(&key), LITERAL("a/b")));
    key.n = 0;
    assert_false(codec_path_to_key(LITERAL("%self"), &key)); /* the root has no key of its own */
    key.n = 0;
    assert_false(codec_path_to_key(LITERAL("a/%self/b"), &key));
    buf_free(&key);
}

static void test_names_without_key(void **state)
{
    (void)state;
    const char *paths[] = {"",      ".",       "..",          "a/./b",        "a//b",
                           "%~abc", "%=abc",   "%~abc/%=def", "a/%~/x",       "/a",
                           "a/",    "x/%=abc", "%~",          "%=%41bcdefg%", "%=a%2Fb"};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        struct buf key = {0};
        if (codec_path_to_key(bytes_str(paths[i]), &key))
            fail_msg("'%s' has a key", paths[i]);
        buf_free(&key);
    }
}

/* Keys of the bytes that the rules turn on, with lengths about the limits. */
static size_t hostile_key(uint8_t *key)
{
    static const char alphabet[] = "%%%%2500EEself~=./\0aA/";
    static const size_t lengths[] = {1, 2, 3, 4, 6, 9, 80, 81, 160, 161, 254, 255, 256, 257, 700};
    size_t n = lengths[(size_t)rand() % ARRAY_LEN(lengths)];
    bool one_component = rand() % 2;
    for (size_t i = 0; i < n; i++) {
        key[i] = (uint8_t)alphabet[(size_t)rand() % (sizeof alphabet - 1)];
        if (n > 200 && rand() % 8)
            key[i] = 'x';
        if (one_component && key[i] == '/')
            key[i] = '%';
    }
    return n;
}

static void test_property_key_path_key(void **state)
{
    (void)state;
    srand(1);
    for (int round = 0; round < 60000; round++) {
        uint8_t key[700];
        size_t n = hostile_key(key);
        struct buf path = {0}, back = {0};
        codec_key_to_path(bytes_of(key, n), &path);
        size_t run = 0;
        for (size_t i = 0; i < path.n; i++) {
            assert_int_not_equal(path.p[i], 0);
            run = path.p[i] == '/' ? 0 : run + 1;
            assert_true(run <= CODEC_NAME_MAX);
        }
        assert_true(codec_path_to_key(buf_bytes(&path), &back));
        assert_true(bytes_equal(buf_bytes(&back), bytes_of(key, n)));
        buf_free(&path);
        buf_free(&back);
    }
}

/* A path that has a key is that key's path: no second path leads to a key. */
static void test_property_path_key_path(void **state)
{
    (void)state;
    srand(2);
    size_t with_key = 0;
    for (int round = 0; round < 60000; round++) {
        uint8_t path[700];
        size_t n = hostile_key(path);
        struct buf key = {0}, back = {0};
        if (codec_path_to_key(bytes_of(path, n), &key)) {
            codec_key_to_path(buf_bytes(&key), &back);
            struct buf self = {0};
            buf_append(&self, back.p, back.n);
            buf_append(&self, "/" CODEC_SELF, 1 + strlen(CODEC_SELF));
            assert_true(bytes_equal(buf_bytes(&back), bytes_of(path, n)) ||
                        bytes_equal(buf_bytes(&self), bytes_of(path, n)));
            buf_free(&self);
            with_key++;
        }
        buf_free(&key);
        buf_free(&back);
    }
    assert_true(with_key > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples),
        cmocka_unit_test(test_self),
        cmocka_unit_test(test_names_without_key),
        cmocka_unit_test(test_property_key_path_key),
        cmocka_unit_test(test_property_path_key_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
