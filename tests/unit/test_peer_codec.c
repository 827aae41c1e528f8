/* Raft messages on the wire: nothing is lost, nothing damaged gets through. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/peer/codec.h"

static struct raft_message append_message(struct raft_entry **entries)
{
    entries[0] = raft_entry_new(3, 8, RAFT_ENTRY_COMMAND, 77, bytes_str("hello"));
    entries[1] = raft_entry_new(4, 9, RAFT_ENTRY_NOOP, 78, BYTES_EMPTY);
    return (struct raft_message){
        .type = RAFT_MSG_APPEND,
        .from = 1,
        .to = 2,
        .term = 4,
        .log_term = 3,
        .index = 7,
        .commit = 6,
        .context = UINT64_MAX,
        .entries = entries,
        .entry_count = 2,
    };
}

static void a_batch_comes_back_whole(void **state)
{
    (void)state;
    struct raft_entry *entries[2];
    struct raft_message out = append_message(entries), in;
    struct raft_message vote = {
        .type = RAFT_MSG_VOTE, .from = 1, .to = 2, .term = 9, .force = true, .reject = true};
    struct buf b = {0};
    codec_batch_begin(&b, 0xffffffffffffffff, 1);
    codec_batch_add(&b, &out);
    codec_batch_add(&b, &vote);
    codec_batch_end(&b);
    Raftpb__MessageBatch *batch = codec_batch_unpack(buf_bytes(&b));
    assert_non_null(batch);
    assert_int_equal(batch->cluster_id, UINT64_MAX);
    assert_int_equal(batch->from, 1);
    assert_int_equal(batch->n_messages, 2);
    assert_int_equal(codec_from_wire(batch->messages[0], &in), ERR_OK);
    assert_int_equal(in.type, RAFT_MSG_APPEND);
    assert_int_equal(in.context, UINT64_MAX);
    assert_int_equal(in.entry_count, 2);
    assert_int_equal(in.entries[0]->stamp, 77);
    assert_int_equal(in.entries[0]->size, 5);
    assert_memory_equal(in.entries[0]->data, "hello", 5);
    assert_int_equal(in.entries[1]->type, RAFT_ENTRY_NOOP);
    codec_message_free(&in);
    assert_int_equal(codec_from_wire(batch->messages[1], &in), ERR_OK);
    assert_true(in.force && in.reject);
    raftpb__message_batch__free_unpacked(batch, NULL);
    for (size_t i = 0; i < b.n; i++) { /* every single damaged byte is noticed */
        b.p[i] ^= 0x10;
        assert_null(codec_batch_unpack(buf_bytes(&b)));
        b.p[i] ^= 0x10;
        assert_null(codec_batch_unpack(bytes_of(b.p, i)));
    }
    buf_free(&b);
    raft_entry_unref(entries[0]);
    raft_entry_unref(entries[1]);
}

static void a_configuration_comes_back_whole(void **state)
{
    (void)state;
    struct raft_message out = {.type = RAFT_MSG_SNAPSHOT,
                               .from = 1,
                               .to = 2,
                               .snapshot_index = 10,
                               .snapshot_term = 3,
                               .snapshot_conf = {.voters = {1, 2},
                                                 .voter_count = 2,
                                                 .learners = {5},
                                                 .learner_count = 1}},
                        in;
    struct arena arena = {0};
    Raftpb__Message wire;
    codec_to_wire(&out, &arena, &wire);
    assert_int_equal(codec_from_wire(&wire, &in), ERR_OK);
    assert_int_equal(in.snapshot_conf.voter_count, 2);
    assert_int_equal(in.snapshot_conf.voters[1], 2);
    assert_int_equal(in.snapshot_conf.learners[0], 5);
    arena_free(&arena);
}

static void a_refusal_comes_back_whole(void **state)
{
    (void)state;
    struct raft_message out = {.type = RAFT_MSG_PROPOSE_REFUSED,
                               .from = 1,
                               .to = 2,
                               .context = UINT64_MAX,
                               .origin = UINT64_MAX - 1,
                               .reason = RAFT_REFUSED_MAX},
                        in;
    struct arena arena = {0};
    Raftpb__Message wire;
    codec_to_wire(&out, &arena, &wire);
    assert_int_equal(codec_from_wire(&wire, &in), ERR_OK);
    assert_int_equal(in.context, out.context);
    assert_int_equal(in.origin, out.origin);
    assert_int_equal(in.reason, out.reason);
    wire.reason = RAFT_REFUSED_MAX + 1;
    assert_int_equal(codec_from_wire(&wire, &in), ERR_INVALID);
    arena_free(&arena);
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    struct raft_message in;
    struct raft_entry *entries[2];
    struct raft_message out = append_message(entries);
    struct arena arena = {0};
    Raftpb__Message wire;
    uint64_t many[RAFT_MEMBERS_MAX + 1], unsorted[] = {2, 1}, zero[] = {0};
    for (size_t i = 0; i < ARRAY_LEN(many); i++)
        many[i] = i + 1;

    codec_to_wire(&out, &arena, &wire);
    wire.type = 0;
    assert_int_equal(codec_from_wire(&wire, &in), ERR_INVALID);
    wire.type = RAFT_MSG_TYPE_MAX + 1;
    assert_int_equal(codec_from_wire(&wire, &in), ERR_INVALID);
    wire.type = RAFT_MSG_APPEND;
    wire.index = 6; /* the entries don't follow it */
    assert_int_equal(codec_from_wire(&wire, &in), ERR_INVALID);
    wire.index = 7;
    wire.entries[1]->type = 9;
    assert_int_equal(codec_from_wire(&wire, &in), ERR_INVALID);
    wire.entries[1]->type = 0;
    wire.voters = many;
    wire.n_voters = ARRAY_LEN(many);
    assert_int_equal(codec_from_wire(&wire, &in), ERR_INVALID);
    wire.voters = unsorted;
    wire.n_voters = 2;
    assert_int_equal(codec_from_wire(&wire, &in), ERR_INVALID);
    wire.voters = zero;
    wire.n_voters = 1;
    assert_int_equal(codec_from_wire(&wire, &in), ERR_INVALID);
    arena_free(&arena);
    raft_entry_unref(entries[0]);
    raft_entry_unref(entries[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_comes_back_whole),
        cmocka_unit_test(a_configuration_comes_back_whole),
        cmocka_unit_test(a_refusal_comes_back_whole),
        cmocka_unit_test(nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
