#include "tests/sim/without.h"

#include <stdio.h>
#include <string.h>

#include "lib/base/memory.h"

#define NO_SNAPSHOTS 10000 /* entries: more than a run has */

static const char *const fault_names[FAULT_KINDS] = {
    [FAULT_CRASH] = "crash",         [FAULT_CRASH_IO] = "crash-io",
    [FAULT_BLACKOUT] = "blackout",   [FAULT_PAUSE] = "pause",
    [FAULT_PARTITION] = "partition", [FAULT_ISOLATE] = "isolate",
    [FAULT_BRIDGE] = "bridge",       [FAULT_SLOW_LINK] = "slow-link",
    [FAULT_RESET] = "reset",         [FAULT_CLOCK] = "clock",
    [FAULT_SLOW_DISK] = "slow-disk", [FAULT_DISK_HANG] = "disk-hang",
    [FAULT_IO_ERROR] = "io-error",   [FAULT_DISK_FULL] = "disk-full",
    [FAULT_KILL] = "kill",           [FAULT_ATTRITION] = "attrition",
    [FAULT_SWIZZLE] = "swizzle",     [FAULT_ROT] = "rot",
    [FAULT_MISDIRECT] = "misdirect", [FAULT_WIPE] = "wipe",
};

/* What is no event but a setting: `off` is its value without it. */
static const struct {
    const char *name;
    size_t offset, size;
    uint64_t off;
} settings[] = {
#define SETTING(name, field, off)                                                                  \
    {                                                                                              \
        name, offsetof(struct faults, field), sizeof(((struct faults *)0)->field), off             \
    }
    SETTING("loss", loss_percent, 0),
    SETTING("duplicates", duplicate_percent, 0),
    SETTING("reorder", reorder_percent, 0),
    SETTING("late", late_percent, 0),
    SETTING("damage", damage_permille, 0),
    SETTING("lost-answers", answer_loss_permille, 0),
    SETTING("power-loss", power_percent, 0),
    SETTING("drift", drift_permille, 0),
    SETTING("crash-in-start", crash_in_start_percent, 0),
    SETTING("chase", chase_percent, 0),
    SETTING("quota", quota_bytes, 0),
    SETTING("small-queue", uncommitted_bytes_max, 0),
    SETTING("compaction", compact_percent, 0),
    SETTING("slow-watch", slow_watch_percent, 0),
    SETTING("administration", administration, 0),
    SETTING("defragment", defragments, 0),
    SETTING("snapshots", snapshot_entries, NO_SNAPSHOTS),
#undef SETTING
};

_Static_assert(FAULT_KINDS + ARRAY_LEN(settings) <= 64, "a set is a uint64_t");

static uint64_t get(const struct faults *f, size_t setting)
{
    const char *at = (const char *)f + settings[setting].offset;
    uint64_t wide;
    uint32_t narrow;
    if (settings[setting].size == sizeof(wide)) {
        memcpy(&wide, at, sizeof(wide));
        return wide;
    }
    memcpy(&narrow, at, sizeof(narrow));
    return narrow;
}

static void switch_off(struct faults *f, size_t setting)
{
    char *at = (char *)f + settings[setting].offset;
    uint32_t narrow = (uint32_t)settings[setting].off;
    if (settings[setting].size == sizeof(uint64_t))
        memcpy(at, &settings[setting].off, sizeof(uint64_t));
    else
        memcpy(at, &narrow, sizeof(narrow));
}

size_t without_count(void)
{
    return FAULT_KINDS + ARRAY_LEN(settings);
}

const char *without_name(size_t kind)
{
    return kind < FAULT_KINDS ? fault_names[kind] : settings[kind - FAULT_KINDS].name;
}

static bool find(const char *name, size_t n, size_t *ret_kind)
{
    for (size_t i = 0; i < without_count(); i++) {
        if (strlen(without_name(i)) == n && memcmp(without_name(i), name, n) == 0) {
            *ret_kind = i;
            return true;
        }
    }
    return false;
}

bool without_parse(const char *names, uint64_t *ret_set)
{
    uint64_t set = 0;
    while (*names) {
        size_t n = strcspn(names, ","), kind;
        if (!find(names, n, &kind))
            return false;
        set |= 1ull << kind;
        names += n + (names[n] == ',');
    }
    *ret_set = set;
    return true;
}

void without_print(uint64_t set, char *out, size_t size)
{
    size_t n = 0;
    out[0] = '\0';
    for (size_t i = 0; i < without_count() && n < size; i++) {
        if (set >> i & 1)
            n += (size_t)snprintf(out + n, size - n, "%s%s", n ? "," : "", without_name(i));
    }
}

uint64_t without_drawn(const struct faults *f)
{
    uint64_t set = 0;
    for (size_t i = 0; i < without_count(); i++) {
        bool on =
            i < FAULT_KINDS ? f->on[i] : get(f, i - FAULT_KINDS) != settings[i - FAULT_KINDS].off;
        set |= (uint64_t)on << i;
    }
    return set;
}

void without_apply(struct faults *f, uint64_t set)
{
    for (size_t i = 0; i < without_count(); i++) {
        if (!(set >> i & 1))
            continue;
        if (i < FAULT_KINDS)
            f->on[i] = false;
        else
            switch_off(f, i - FAULT_KINDS);
    }
}
