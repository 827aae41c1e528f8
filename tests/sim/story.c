#include "tests/sim/story.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/memory.h"

typedef unsigned long long ull;

#define SECOND_NS 1000000000ull
#define NAMES_MAX 8 /* entries, revisions, requests of one subject */
#define MEMBERS_MAX 64
#define PAIRS_MAX 512
#define BEFORE_MAX 4 /* lines of one sort from before the begin */
#define GAP_MIN 10   /* fewer lines are left out without a word */
/* A story without an entry, revision or request of its own begins so long before its end. */
#define LAST_NS (5 * SECOND_NS)

/* How much a line tells; what tells least is left out first. */
enum { NOTHING, LITTLE, SOME, MUCH, ALL };

struct names {
    uint64_t all[NAMES_MAX];
    size_t count;
};

struct pick {
    const struct trace_line *line;
    int worth;
    size_t times; /* the same again, one after the other */
};

struct story {
    const struct trace *trace;
    struct about about;
    bool has_subject;
    const struct trace_line **lines;
    size_t count;
    bool *before; /* by line: it is of before the story's begin, and says how things stood then */
    struct names indices, revisions, values;
    uint64_t members; /* concerned, as bits */
    uint64_t from, to;
    /* While the lines are gone through. */
    bool writing[MEMBERS_MAX]; /* it has the entry, and not yet on its disk */
    struct {
        const char *format;
        uint64_t a, b, index;
    } pairs[PAIRS_MAX]; /* what each member told each other last about the entry */
    size_t pair_count;
    struct pick *picks;
    size_t pick_count;
};

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

static bool has_between(const struct names *n, uint64_t low, uint64_t high)
{
    for (size_t i = 0; i < n->count; i++) {
        if (n->all[i] >= low && n->all[i] <= high)
            return true;
    }
    return false;
}

struct look {
    enum trace_field fields[TRACE_ARGS];
    size_t count;
    bool specific, term, key, thing, client; /* thing: the watch or the lease */
    bool other_thing;                        /* another one */
    bool up_to;                              /* acknowledges the entry, and others */
    uint64_t up_to_index, members, first_member, second_member;
};

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
        k->specific |= has_between(&s->indices, v, range ? end : v);
        break;
    case FIELD_INDEX_UP_TO:
        k->up_to |= has_between(&s->indices, 1, v);
        k->up_to_index = v;
        break;
    case FIELD_REVISION:
        k->specific |= has_between(&s->revisions, v, range ? end : v);
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

static struct look look_at(const struct story *s, const struct trace_line *l)
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
            struct look k = look_at(s, s->lines[i]);
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
        struct look k = look_at(s, l);
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
        struct look k = look_at(s, s->lines[i]);
        bool vote = k.term && trace_sort_of(s->lines[i]) == TRACE_VOTE;
        if (s->lines[i]->at >= s->from && (k.specific || k.thing || vote))
            s->members |= k.members;
    }
}

/* The last lines of one sort: places, plus one; 0: none. */
struct last {
    size_t at[BEFORE_MAX];
    size_t count;
};

static void last_add(struct last *l, size_t place)
{
    l->at[l->count++ % BEFORE_MAX] = place + 1;
}

static void last_mark(const struct story *s, const struct last *l, size_t count)
{
    for (size_t i = 0; i < count && i < l->count; i++)
        s->before[l->at[(l->count - 1 - i) % BEFORE_MAX] - 1] = true;
}

/* How things stood when it began: of each member concerned the last faults and the last word on who leads, the last thing
 * that befell the whole network, and the last of the watch or lease. */
static void find_before(struct story *s)
{
    struct last faults[MEMBERS_MAX] = {0}, reigns[MEMBERS_MAX] = {0}, network = {0}, thing = {0};
    s->before = xcalloc(s->count + 1, sizeof(*s->before));
    for (size_t i = 0; s->has_subject && i < s->count && s->lines[i]->at < s->from; i++) {
        struct look k = look_at(s, s->lines[i]);
        enum trace_sort sort = trace_sort_of(s->lines[i]);
        size_t id = k.first_member % MEMBERS_MAX;
        if (k.thing)
            last_add(&thing, i);
        else if (sort == TRACE_FAULT)
            last_add(id ? &faults[id] : &network, i);
        else if (sort == TRACE_REIGN)
            last_add(&reigns[id], i);
    }
    for (size_t i = 1; i < MEMBERS_MAX; i++) {
        if (!(s->members >> i & 1))
            continue;
        last_mark(s, &faults[i], 2);
        last_mark(s, &reigns[i], 1);
    }
    last_mark(s, &network, 1);
    last_mark(s, &thing, BEFORE_MAX);
}

/* ---- what it is worth --------------------------------------------------------------------------- */

/* Is this the first time since its last start that the one told the other that much? */
static bool is_news(struct story *s, const struct trace_line *l, const struct look *k)
{
    size_t i = 0;
    while (i < s->pair_count &&
           (s->pairs[i].format != l->format || s->pairs[i].a != k->first_member ||
            s->pairs[i].b != k->second_member))
        i++;
    if (i == PAIRS_MAX)
        return false;
    if (i == s->pair_count) {
        s->pairs[s->pair_count].format = l->format;
        s->pairs[s->pair_count].a = k->first_member;
        s->pairs[s->pair_count++].b = k->second_member;
    } else if (has_between(&s->indices, 1, s->pairs[i].index)) {
        return false;
    }
    s->pairs[i].index = k->up_to_index;
    return true;
}

/* It died or lost its data: what it says next is news again. */
static void forget(struct story *s, const struct look *k)
{
    for (size_t i = 0; i < s->pair_count; i++) {
        if (k->first_member == s->pairs[i].a || k->first_member == s->pairs[i].b)
            s->pairs[i].index = 0;
    }
    s->writing[k->first_member % MEMBERS_MAX] = false;
}

static int worth_of_disk(const struct story *s, const struct look *k)
{
    uint64_t id = k->first_member;
    if (!(s->members >> id % MEMBERS_MAX & 1))
        return NOTHING;
    if (s->writing[id % MEMBERS_MAX])
        return MUCH;
    bool asked = id == s->about.member || id == s->about.other;
    if (asked && s->indices.count == 0)
        return SOME;
    return NOTHING;
}

static int worth_of_fault(struct story *s, const struct look *k)
{
    forget(s, k);
    if (k->members == 0 || k->specific)
        return MUCH;
    return k->members & s->members ? ALL : SOME;
}

/* The entry is on its way to this member's disk, or there. */
static void note_writing(struct story *s, const struct trace_line *l, const struct look *k)
{
    enum trace_sort sort = trace_sort_of(l);
    bool comes = (sort == TRACE_MESSAGE || sort == TRACE_LINK) && k->specific &&
                 (k->fields[1] == FIELD_INDEX || k->fields[0] == FIELD_INDEX);
    if (comes)
        s->writing[k->first_member % MEMBERS_MAX] = true;
    if (sort == TRACE_DISK && k->up_to)
        s->writing[k->first_member % MEMBERS_MAX] = false;
}

/* Nobody knows what it is about. */
static int worth_without_subject(enum trace_sort sort)
{
    if (sort == TRACE_FAULT || sort == TRACE_REIGN)
        return MUCH;
    return sort == TRACE_ROUTINE                      ? NOTHING
           : sort == TRACE_DISK || sort == TRACE_LINK ? LITTLE
                                                      : SOME;
}

static int worth_of(struct story *s, const struct trace_line *l)
{
    struct look k = look_at(s, l);
    enum trace_sort sort = trace_sort_of(l);
    if (!s->has_subject)
        return worth_without_subject(sort);
    bool concerned = k.members & s->members;
    note_writing(s, l, &k);
    if (sort == TRACE_ROUTINE)
        return NOTHING;
    if (sort == TRACE_FAULT)
        return worth_of_fault(s, &k);
    if (k.up_to)
        return is_news(s, l, &k) && concerned ? ALL : NOTHING;
    if (k.specific || k.thing)
        return ALL;
    if (sort == TRACE_DISK)
        return worth_of_disk(s, &k);
    if (sort == TRACE_VOTE)
        return k.term ? ALL : concerned && s->indices.count == 0 ? LITTLE : NOTHING;
    if (sort == TRACE_REIGN)
        return k.other_thing ? NOTHING : k.term ? ALL : concerned ? MUCH : LITTLE;
    if (k.key || k.client)
        return SOME;
    return concerned && sort == TRACE_PLAIN && s->indices.count == 0 ? LITTLE : NOTHING;
}

/* ---- the choice --------------------------------------------------------------------------------- */

/* Writes to one file, say: one line, and how often. */
static bool is_same(const struct trace_line *a, const struct trace_line *b)
{
    return a->format == b->format && memcmp(a->args, b->args, sizeof(a->args)) == 0;
}

static void pick(struct story *s, const struct trace_line *l, int worth)
{
    struct pick *last = s->pick_count ? &s->picks[s->pick_count - 1] : NULL;
    if (last && is_same(last->line, l)) {
        last->times++;
        return;
    }
    s->picks[s->pick_count++] = (struct pick){l, worth, 1};
}

static size_t count_worth(const struct story *s, int at_least)
{
    size_t n = 0;
    for (size_t i = 0; i < s->pick_count; i++)
        n += s->picks[i].worth >= at_least;
    return n;
}

/* Of the lines that are worth just too little to be all shown, the last ones are; of those that must be shown, and are too
 * many, the first and the last. */
static void leave_out(struct story *s)
{
    int least = ALL;
    while (least > LITTLE && count_worth(s, least) < STORY_LINES &&
           count_worth(s, least - 1) <= STORY_LINES)
        least--;
    size_t above = count_worth(s, least + 1);
    if (count_worth(s, least) < STORY_LINES && least > LITTLE)
        above = count_worth(s, least--);
    size_t room = STORY_LINES > above ? STORY_LINES - above : 0,
           all = count_worth(s, least) - above;
    size_t first = least == ALL ? room / 3 : 0, seen = 0;
    for (size_t i = 0; i < s->pick_count; i++) {
        struct pick *p = &s->picks[i];
        if (p->worth == least && all > room) {
            if (seen >= first && seen < all - (room - first))
                p->worth = NOTHING;
            seen++;
        } else if (p->worth < least) {
            p->worth = NOTHING;
        }
    }
}

static void choose(struct story *s)
{
    s->picks = xcalloc(s->count + 1, sizeof(*s->picks));
    for (size_t i = 0; i < s->count; i++) {
        int worth = s->lines[i]->at >= s->from ? worth_of(s, s->lines[i])
                    : s->before[i]             ? MUCH
                                               : NOTHING;
        if (worth > NOTHING)
            pick(s, s->lines[i], worth);
    }
    leave_out(s);
}

/* ---- print -------------------------------------------------------------------------------------- */

static void print_with(const struct trace *t, const struct trace_line *l, size_t times, FILE *out)
{
    char text[TRACE_TEXT_MAX];
    trace_text(t, l, text);
    fprintf(out, "%3llu.%06llu %s", (ull)(l->at / SECOND_NS), (ull)(l->at % SECOND_NS / 1000),
            text);
    if (times > 1)
        fprintf(out, " (%zu times)", times);
    fprintf(out, "\n");
}

void story_print_line(const struct trace *t, const struct trace_line *l, FILE *out)
{
    print_with(t, l, 1, out);
}

static void print_names(const char *what, const struct names *n, FILE *out)
{
    for (size_t i = 0; i < n->count; i++)
        fprintf(out, "%s%s %llu", i ? "," : ";", i ? "" : what, (ull)n->all[i]);
}

static void print_head(const struct story *s, FILE *out)
{
    fprintf(out, "the story, of members");
    for (size_t i = 0; i < MEMBERS_MAX; i++) {
        if (s->members >> i & 1)
            fprintf(out, " n%zu", i);
    }
    print_names(" entry", &s->indices, out);
    print_names(" revision", &s->revisions, out);
    print_names(" the request with value", &s->values, out);
    fprintf(out, ":\n");
}

static void print_picks(const struct story *s, FILE *out)
{
    size_t left_out = 0;
    for (size_t i = 0; i <= s->pick_count; i++) {
        const struct pick *p = &s->picks[i];
        if (i < s->pick_count && p->worth == NOTHING) {
            left_out++;
            continue;
        }
        if (left_out >= GAP_MIN)
            fprintf(out, "           ... (%zu lines that tell less)\n", left_out);
        left_out = 0;
        if (i < s->pick_count)
            print_with(s->trace, p->line, p->times, out);
    }
}

void story_print(const struct trace *t, const struct about *about, FILE *out)
{
    struct story s = {.trace = t, .has_subject = about != NULL};
    s.lines = trace_lines(t, &s.count);
    if (about)
        s.about = *about;
    s.to = s.count ? s.lines[s.count - 1]->at : 0;
    add(&s.indices, s.about.index);
    add(&s.revisions, s.about.revision);
    add(&s.values, s.about.value);
    follow_links(&s);
    find_begin(&s);
    find_members(&s);
    find_before(&s);
    choose(&s);
    if (about)
        print_head(&s, out);
    print_picks(&s, out);
    free(s.picks);
    free(s.before);
    free(s.lines);
}
