#include "tests/sim/story_internal.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/memory.h"

typedef unsigned long long ull;

#define BEFORE_MAX 4 /* lines of one sort from before the begin */
#define GAP_MIN 10   /* fewer lines are left out without a word */

/* How much a line tells; what tells least is left out first. */
enum { NOTHING, LITTLE, SOME, MUCH, ALL };

/* ---- how things stood before -------------------------------------------------------------------- */

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
        struct look k = story_look(s, s->lines[i]);
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
    } else if (story_has_between(&s->indices, 1, s->pairs[i].index)) {
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
    struct look k = story_look(s, l);
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
    story_find_subject(&s);
    find_before(&s);
    choose(&s);
    if (about)
        print_head(&s, out);
    print_picks(&s, out);
    free(s.picks);
    free(s.before);
    free(s.lines);
}
