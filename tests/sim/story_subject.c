/* What a story is about: from what the check names to its entry, its request, its revision, its members. */
#include "tests/sim/story_internal.h"

/* A story without an entry, revision or request of its own begins so long before its end. */
#define LAST_NS (5 * SECOND_NS)

/* ---- what a line is about ----------------------------------------------------------------------- */

static bool has(const struct names *n, uint64_t v)
{
    for (size_t i = 0; i < n->count; i++) {
        if (n->all[i] == v)
            return true;
    }
    return false;
}

static void add(struct names *n, uint64_t v)
{
    if (v && n->count < NAMES_MAX && !has(n, v))
        n->all[n->count++] = v;
}

bool story_has_between(const struct names *n, uint64_t low, uint64_t high)
{
    for (size_t i = 0; i < n->count; i++) {
        if (n->all[i] >= low && n->all[i] <= high)
            return true;
    }
    return false;
}

static void look_at_member(struct look *k, uint64_t id)
{
    k->members |= 1ull << id % MEMBERS_MAX;
    if (!k->first_member)
        k->first_member = id;
    else if (!k->second_member)
        k->second_member = id;
}

static void look_at_field(const struct story *s, const struct trace_line *l, size_t i,
                          struct look *k)
{
    const struct about *a = &s->about;
    uint64_t v = l->args[i], end = i + 1 < k->count ? l->args[i + 1] : v;
    bool range = i + 1 < k->count &&
                 (k->fields[i + 1] == FIELD_INDEX_END || k->fields[i + 1] == FIELD_REVISION_END);
    switch (k->fields[i]) {
    case FIELD_MEMBER:
        look_at_member(k, v);
        break;
    case FIELD_INDEX:
        k->specific |= story_has_between(&s->indices, v, range ? end : v);
        break;
    case FIELD_INDEX_UP_TO:
        k->up_to |= story_has_between(&s->indices, 1, v);
        k->up_to_index = v;
        break;
    case FIELD_REVISION:
        k->specific |= story_has_between(&s->revisions, v, range ? end : v);
        break;
    case FIELD_VALUE:
        k->specific |= has(&s->values, v);
        break;
    case FIELD_TERM:
        k->term |= a->term && v == a->term;
        break;
    case FIELD_KEY:
        k->key |= v >= a->key_from && v < a->key_end;
        break;
    case FIELD_LEASE:
        k->thing |= a->lease && v == a->lease;
        k->other_thing |= v != a->lease;
        break;
    case FIELD_WATCH:
        k->thing |= a->watch && v == a->watch;
        k->other_thing |= v != a->watch;
        break;
    case FIELD_CLIENT:
        k->client |= a->client && v == a->client;
        break;
    default:
        break;
    }
}

struct look story_look(const struct story *s, const struct trace_line *l)
{
    struct look k = {0};
    k.count = trace_fields(l, k.fields);
    for (size_t i = 0; i < k.count; i++)
        look_at_field(s, l, i, &k);
    return k;
}

/* ---- the subject -------------------------------------------------------------------------------- */

static void add_names(struct story *s, const struct trace_line *l, const struct look *k)
{
    for (size_t i = 0; i < k->count; i++) {
        if (k->fields[i] == FIELD_INDEX)
            add(&s->indices, l->args[i]);
        else if (k->fields[i] == FIELD_VALUE)
            add(&s->values, l->args[i]);
        else if (k->fields[i] == FIELD_REVISION)
            add(&s->revisions, l->args[i]);
    }
}

/* From the entry to its request to its revision, and back. */
static void follow_links(struct story *s)
{
    for (int pass = 0; pass < 3; pass++) {
        for (size_t i = 0; i < s->count; i++) {
            struct look k = story_look(s, s->lines[i]);
            if (trace_sort_of(s->lines[i]) == TRACE_LINK && k.specific)
                add_names(s, s->lines[i], &k);
        }
    }
}

/* The story begins with the first line about the entry, revision or request; else, about the watch, lease or term, or
 * some time before the end. */
static void find_begin(struct story *s)
{
    uint64_t specific = UINT64_MAX, other = UINT64_MAX;
    for (size_t i = 0; i < s->count; i++) {
        const struct trace_line *l = s->lines[i];
        struct look k = story_look(s, l);
        enum trace_sort sort = trace_sort_of(l);
        if (k.specific && l->at < specific)
            specific = l->at;
        if ((k.thing || (k.term && sort != TRACE_ROUTINE)) && l->at < other)
            other = l->at;
    }
    uint64_t last = s->to > LAST_NS ? s->to - LAST_NS : 0;
    s->from = specific != UINT64_MAX ? specific : other != UINT64_MAX ? other : last;
}

static void find_members(struct story *s)
{
    const struct about *a = &s->about;
    if (a->member)
        s->members |= 1ull << a->member % MEMBERS_MAX;
    if (a->other)
        s->members |= 1ull << a->other % MEMBERS_MAX;
    for (size_t i = 0; i < s->count; i++) {
        struct look k = story_look(s, s->lines[i]);
        bool vote = k.term && trace_sort_of(s->lines[i]) == TRACE_VOTE;
        if (s->lines[i]->at >= s->from && (k.specific || k.thing || vote))
            s->members |= k.members;
    }
}

void story_find_subject(struct story *s)
{
    const struct about *a = &s->about;
    s->to = s->count ? s->lines[s->count - 1]->at : 0;
    add(&s->indices, a->index);
    add(&s->revisions, a->revision);
    add(&s->values, a->value);
    follow_links(s);
    find_begin(s);
    find_members(s);
}
