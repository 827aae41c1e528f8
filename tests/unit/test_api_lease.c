/* The Lease, Cluster and Maintenance services end to end. */
#include "tests/unit/api_fixture.h"

#define SELF 0x8e9e05c52164694d

static int64_t grant(struct fixture *f, int64_t ttl, int64_t *ret_ttl)
{
    Etcdserverpb__LeaseGrantRequest r = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    r.ttl = ttl;
    Etcdserverpb__LeaseGrantResponse *a = call(f, "/etcdserverpb.Lease/LeaseGrant", &r,
                                               &etcdserverpb__lease_grant_response__descriptor);
    assert_non_null(a);
    int64_t id = a->id;
    if (ret_ttl)
        *ret_ttl = a->ttl;
    free_answer(a);
    assert_true(id > 0);
    return id;
}

static void put_with(struct fixture *f, const char *key, int64_t lease)
{
    Etcdserverpb__PutRequest r = ETCDSERVERPB__PUT_REQUEST__INIT;
    r.key = text_data(key);
    r.lease = lease;
    void *a = call(f, "/etcdserverpb.KV/Put", &r, &etcdserverpb__put_response__descriptor);
    assert_non_null(a);
    free_answer(a);
}

static Etcdserverpb__LeaseTimeToLiveResponse *time_to_live(struct fixture *f, int64_t id)
{
    Etcdserverpb__LeaseTimeToLiveRequest r = ETCDSERVERPB__LEASE_TIME_TO_LIVE_REQUEST__INIT;
    r.id = id;
    r.keys = true;
    Etcdserverpb__LeaseTimeToLiveResponse *a =
        call(f, "/etcdserverpb.Lease/LeaseTimeToLive", &r,
             &etcdserverpb__lease_time_to_live_response__descriptor);
    assert_non_null(a);
    return a;
}

static void a_lease_holds_its_keys(void **state)
{
    struct fixture *f = *state;
    int64_t id = grant(f, 100, NULL);
    put_with(f, "b", id);
    put_with(f, "a", id);
    Etcdserverpb__LeaseTimeToLiveResponse *a = time_to_live(f, id);
    assert_int_equal(a->grantedttl, 100);
    assert_in_range(a->ttl, 90, 100);
    assert_int_equal(a->n_keys, 2);
    free_answer(a);

    Etcdserverpb__LeaseRevokeRequest r = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
    r.id = id;
    void *revoked = call(f, "/etcdserverpb.Lease/LeaseRevoke", &r,
                         &etcdserverpb__lease_revoke_response__descriptor);
    assert_non_null(revoked);
    free_answer(revoked);
    assert_null(call(f, "/etcdserverpb.Lease/LeaseRevoke", &r,
                     &etcdserverpb__lease_revoke_response__descriptor));
    assert_int_equal(f->status, 5);
    a = time_to_live(f, id);
    assert_int_equal(a->ttl, -1);
    free_answer(a);

    Etcdserverpb__RangeRequest g = ETCDSERVERPB__RANGE_REQUEST__INIT;
    g.key = text_data("a");
    Etcdserverpb__RangeResponse *got =
        call(f, "/etcdserverpb.KV/Range", &g, &etcdserverpb__range_response__descriptor);
    assert_int_equal(got->count, 0);
    free_answer(got);
}

static void a_short_lease_survives_an_election(void **state)
{
    int64_t ttl;
    grant(*state, 0, &ttl);
    assert_int_equal(ttl, 1); /* one and a half election timeouts of 100 ms, in whole seconds */
}

static void keep_alive_answers_each(void **state)
{
    struct fixture *f = *state;
    int64_t id = grant(f, 60, NULL);
    struct stream *s = stream_open(f, "/etcdserverpb.Lease/LeaseKeepAlive");
    Etcdserverpb__LeaseKeepAliveRequest r = ETCDSERVERPB__LEASE_KEEP_ALIVE_REQUEST__INIT;
    for (int i = 0; i < 3; i++) {
        r.id = i == 1 ? 12345 : id;
        stream_send(s, &r);
    }
    for (int i = 0; i < 3; i++) {
        Etcdserverpb__LeaseKeepAliveResponse *a =
            stream_next(s, &etcdserverpb__lease_keep_alive_response__descriptor);
        assert_int_equal(a->id, i == 1 ? 12345 : id);
        assert_int_equal(a->ttl, i == 1 ? 0 : 60);
        assert_int_equal(a->header->member_id, SELF);
        free_answer(a);
    }
    rpc_stream_half_close(s->st);
    RUN_UNTIL(f, s->closed);
    assert_int_equal(s->status, 0);
    stream_free(s);
}

static void leases_are_listed(void **state)
{
    struct fixture *f = *state;
    int64_t later = grant(f, 200, NULL), sooner = grant(f, 100, NULL);
    Etcdserverpb__LeaseLeasesRequest r = ETCDSERVERPB__LEASE_LEASES_REQUEST__INIT;
    Etcdserverpb__LeaseLeasesResponse *a = call(f, "/etcdserverpb.Lease/LeaseLeases", &r,
                                                &etcdserverpb__lease_leases_response__descriptor);
    assert_int_equal(a->n_leases, 2);
    assert_int_equal(a->leases[0]->id, sooner);
    assert_int_equal(a->leases[1]->id, later);
    free_answer(a);
}

static void the_only_member_is_listed(void **state)
{
    struct fixture *f = *state;
    Etcdserverpb__MemberListRequest r = ETCDSERVERPB__MEMBER_LIST_REQUEST__INIT;
    r.linearizable = true;
    Etcdserverpb__MemberListResponse *a = call(f, "/etcdserverpb.Cluster/MemberList", &r,
                                               &etcdserverpb__member_list_response__descriptor);
    assert_int_equal(a->header->revision, 0);
    assert_int_equal(a->n_members, 1);
    assert_int_equal(a->members[0]->id, SELF);
    assert_string_equal(a->members[0]->peerurls[0], "http://localhost:2380");
    free_answer(a);
}

static void wrong_changes_are_refused(void **state)
{
    struct fixture *f = *state;
    Etcdserverpb__MemberAddRequest add = ETCDSERVERPB__MEMBER_ADD_REQUEST__INIT;
    char *urls[] = {(char *)"not a URL"};
    add.peerurls = urls;
    add.n_peerurls = 1;
    assert_null(call(f, "/etcdserverpb.Cluster/MemberAdd", &add,
                     &etcdserverpb__member_add_response__descriptor));
    assert_string_equal(f->text, "etcdserver: given member URLs are invalid");
    Etcdserverpb__MemberRemoveRequest rm = ETCDSERVERPB__MEMBER_REMOVE_REQUEST__INIT;
    rm.id = 1;
    assert_null(call(f, "/etcdserverpb.Cluster/MemberRemove", &rm,
                     &etcdserverpb__member_remove_response__descriptor));
    assert_string_equal(f->text, "etcdserver: member not found");
    Etcdserverpb__MemberPromoteRequest promote = ETCDSERVERPB__MEMBER_PROMOTE_REQUEST__INIT;
    promote.id = SELF;
    assert_null(call(f, "/etcdserverpb.Cluster/MemberPromote", &promote,
                     &etcdserverpb__member_promote_response__descriptor));
    assert_string_equal(f->text, "etcdserver: can only promote a learner member");
}

static void status_and_hash(void **state)
{
    struct fixture *f = *state;
    put(f, "a", "b");
    Etcdserverpb__StatusRequest r = ETCDSERVERPB__STATUS_REQUEST__INIT;
    Etcdserverpb__StatusResponse *a =
        call(f, "/etcdserverpb.Maintenance/Status", &r, &etcdserverpb__status_response__descriptor);
    assert_int_equal(a->leader, SELF);
    assert_true(a->raftindex >= a->raftappliedindex && a->raftappliedindex > 0);
    assert_true(a->dbsize > 0);
    assert_int_equal(a->n_errors, 0);
    free_answer(a);
    Etcdserverpb__HashKVRequest h = ETCDSERVERPB__HASH_KVREQUEST__INIT;
    Etcdserverpb__HashKVResponse *hash =
        call(f, "/etcdserverpb.Maintenance/HashKV", &h, &etcdserverpb__hash_kvresponse__descriptor);
    assert_int_equal(hash->header->revision, 2);
    assert_int_equal(hash->compact_revision, -1);
    assert_true(hash->hash != 0);
    free_answer(hash);
    h.revision = 9;
    assert_null(call(f, "/etcdserverpb.Maintenance/HashKV", &h,
                     &etcdserverpb__hash_kvresponse__descriptor));
    assert_int_equal(f->status, 11);
    Etcdserverpb__MoveLeaderRequest m = ETCDSERVERPB__MOVE_LEADER_REQUEST__INIT;
    m.targetid = 77;
    assert_null(call(f, "/etcdserverpb.Maintenance/MoveLeader", &m,
                     &etcdserverpb__move_leader_response__descriptor));
    assert_string_equal(f->text, "etcdserver: bad leader transferee");
}

static void an_alarm_refuses_writes(void **state)
{
    struct fixture *f = *state;
    Etcdserverpb__AlarmRequest r = ETCDSERVERPB__ALARM_REQUEST__INIT;
    r.action = ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__ACTIVATE;
    r.memberid = SELF;
    r.alarm = ETCDSERVERPB__ALARM_TYPE__NOSPACE;
    Etcdserverpb__AlarmResponse *a =
        call(f, "/etcdserverpb.Maintenance/Alarm", &r, &etcdserverpb__alarm_response__descriptor);
    assert_int_equal(a->n_alarms, 1);
    free_answer(a);
    Etcdserverpb__PutRequest p = ETCDSERVERPB__PUT_REQUEST__INIT;
    p.key = text_data("k");
    assert_null(call(f, "/etcdserverpb.KV/Put", &p, &etcdserverpb__put_response__descriptor));
    assert_int_equal(f->status, 8);
    assert_string_equal(f->text, "etcdserver: mvcc: database space exceeded");
    r.action = ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__DEACTIVATE;
    free_answer(
        call(f, "/etcdserverpb.Maintenance/Alarm", &r, &etcdserverpb__alarm_response__descriptor));
    put(f, "k", "v");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_lease_holds_its_keys),    TEST(a_short_lease_survives_an_election),
        TEST(keep_alive_answers_each),   TEST(leases_are_listed),
        TEST(the_only_member_is_listed), TEST(wrong_changes_are_refused),
        TEST(status_and_hash),           TEST(an_alarm_refuses_writes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
