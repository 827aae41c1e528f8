#include "daemon/raft/conf.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static bool sorted(const uint64_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (ids[i] == 0 || (i > 0 && ids[i] <= ids[i - 1]))
            return false;
    }
    return true;
}

static bool contains(const uint64_t *ids, size_t n, uint64_t id)
{
    for (size_t i = 0; i < n; i++) {
        if (ids[i] == id)
            return true;
    }
    return false;
}

static void insert(uint64_t *ids, size_t *n, uint64_t id)
{
    size_t i = *n;
    while (i > 0 && ids[i - 1] > id) {
        ids[i] = ids[i - 1];
        i--;
    }
    ids[i] = id;
    (*n)++;
}

static void drop(uint64_t *ids, size_t *n, uint64_t id)
{
    size_t kept = 0;
    for (size_t i = 0; i < *n; i++) {
        if (ids[i] != id)
            ids[kept++] = ids[i];
    }
    *n = kept;
}

bool raft_conf_valid(const struct raft_conf *c)
{
    if (c->voter_count > RAFT_MEMBERS_MAX || c->learner_count > RAFT_MEMBERS_MAX ||
        c->voter_count + c->learner_count > RAFT_MEMBERS_MAX)
        return false;
    if (!sorted(c->voters, c->voter_count) || !sorted(c->learners, c->learner_count))
        return false;
    for (size_t i = 0; i < c->learner_count; i++) {
        if (contains(c->voters, c->voter_count, c->learners[i]))
            return false;
    }
    return true;
}

bool raft_conf_is_voter(const struct raft_conf *c, uint64_t id)
{
    return contains(c->voters, c->voter_count, id);
}

bool raft_conf_is_learner(const struct raft_conf *c, uint64_t id)
{
    return contains(c->learners, c->learner_count, id);
}

bool raft_conf_is_only_voter(const struct raft_conf *c, uint64_t id)
{
    return c->voter_count == 1 && c->voters[0] == id;
}

size_t raft_conf_quorum(const struct raft_conf *c)
{
    return c->voter_count / 2 + 1;
}

bool raft_conf_change_apply(struct raft_conf *c, const struct raft_conf_change *change)
{
    bool voter = raft_conf_is_voter(c, change->id);
    bool learner = raft_conf_is_learner(c, change->id);
    bool full = c->voter_count + c->learner_count >= RAFT_MEMBERS_MAX;
    switch (change->type) {
    case RAFT_CONF_ADD_VOTER:
        if (voter)
            return true;
        if (!learner && full)
            return false;
        drop(c->learners, &c->learner_count, change->id);
        insert(c->voters, &c->voter_count, change->id);
        return true;
    case RAFT_CONF_ADD_LEARNER:
        if (learner)
            return true;
        if (voter || full)
            return false;
        insert(c->learners, &c->learner_count, change->id);
        return true;
    case RAFT_CONF_REMOVE:
        if (raft_conf_is_only_voter(c, change->id))
            return false;
        drop(c->voters, &c->voter_count, change->id);
        drop(c->learners, &c->learner_count, change->id);
        return true;
    case RAFT_CONF_UPDATE:
        return true;
    }
    return false;
}

static int descending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x > y ? -1 : x < y;
}

uint64_t raft_conf_quorum_value(uint64_t *values, size_t count)
{
    if (count == 0)
        return 0;
    qsort(values, count, sizeof *values, descending);
    return values[count / 2];
}
