#include "daemon/server/marker.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/server/state_file.h"
#include "lib/base/memory.h"

#define HEAD "quorumd rejoin 1"
#define NAME "rejoin"

static const char *const roles[] = {"unknown", "voter", "learner"};

bool marker_is_old(const struct marker *marker, uint64_t id)
{
    for (size_t i = 0; i < marker->old_count; i++)
        if (marker->old[i] == id)
            return true;
    return false;
}

void marker_add_old(struct marker *marker, uint64_t id)
{
    if (marker_is_old(marker, id))
        return;
    if (marker->old_count == MARKER_OLD_MAX)
        memmove(marker->old, marker->old + 1, --marker->old_count * sizeof(*marker->old));
    marker->old[marker->old_count++] = id;
}

/* ---- The file ------------------------------------------------------------------------------------ */

static enum errc parse_role(const char *text, struct marker *m)
{
    for (size_t i = 0; i < ARRAY_LEN(roles); i++) {
        if (strcmp(text, roles[i]) != 0)
            continue;
        m->role = (enum marker_role)i;
        return ERR_OK;
    }
    return ERR_CORRUPT;
}

static enum errc parse_line(char *line, struct marker *m)
{
    char *fields[2];
    uint64_t id;
    if (state_file_fields(line, fields, 2) != 2)
        return ERR_CORRUPT;
    const char *name = fields[0], *value = fields[1];
    if (!strcmp(name, "cluster"))
        return !strcmp(value, "0") || state_file_hex(value, &m->cluster_id) ? ERR_OK : ERR_CORRUPT;
    if (!strcmp(name, "role"))
        return parse_role(value, m);
    if (!strcmp(name, "removing"))
        m->removing = !strcmp(value, "yes");
    else if (!strcmp(name, "unknown"))
        m->unknown = !strcmp(value, "yes");
    else if (!strcmp(name, "reason"))
        snprintf(m->reason, sizeof(m->reason), "%s", value);
    else if (!strcmp(name, "old") && state_file_hex(value, &id))
        marker_add_old(m, id);
    else
        return ERR_CORRUPT;
    return ERR_OK;
}

static enum errc parse(char *text, bool checked, struct marker *m)
{
    char *save, *line = strtok_r(text, "\n", &save);
    if (!checked || !line || strcmp(line, HEAD) != 0)
        return ERR_CORRUPT;
    while ((line = strtok_r(NULL, "\n", &save)) != NULL)
        if (parse_line(line, m))
            return ERR_CORRUPT;
    return ERR_OK;
}

enum errc marker_load(struct disk *disk, const char *data_dir, struct marker *ret_marker,
                      struct error *err)
{
    char *path = xasprintf("%s/" NAME, data_dir), *text;
    struct marker m = {0};
    bool checked;
    enum errc e = state_file_read(disk, path, &text, &checked, err);
    if (!e) {
        if (parse(text, checked, &m))
            e = error_set(err, ERR_CORRUPT, "%s is damaged: it does not say who is replaced", path);
        else
            *ret_marker = m;
        free(text);
    }
    free(path);
    return e;
}

enum errc marker_save(struct disk *disk, const char *data_dir, const struct marker *m,
                      struct error *err)
{
    struct buf b = {0};
    char reason[sizeof(m->reason)];
    snprintf(reason, sizeof(reason), "%s", m->reason);
    for (char *p = reason; *p; p++)
        if ((unsigned char)*p < ' ')
            *p = ' ';
    buf_printf(&b, HEAD "\ncluster\t%llx\nrole\t%s\nremoving\t%s\nunknown\t%s\n",
               (unsigned long long)m->cluster_id, roles[m->role], m->removing ? "yes" : "no",
               m->unknown ? "yes" : "no");
    for (size_t i = 0; i < m->old_count; i++)
        buf_printf(&b, "old\t%llx\n", (unsigned long long)m->old[i]);
    buf_printf(&b, "reason\t%s\n", reason);
    enum errc e = state_file_write(disk, data_dir, NAME, buf_bytes(&b), err);
    buf_free(&b);
    return e;
}

enum errc marker_remove(struct disk *disk, const char *data_dir, struct error *err)
{
    return state_file_remove(disk, data_dir, NAME, err);
}

/* ---- The damaged data ---------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

enum errc member_remove_damaged(struct disk *disk, const char *data_dir, struct error *err)
{
    char *path = xasprintf("%s/member.damaged", data_dir);
    enum errc e = ERR_OK;
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) && errno != ENOENT)
        e = error_set(err, ERR_IO, "remove %s: %s", path, strerror(errno));
    free(path);
    return e ? e : disk->sync_dir(disk, data_dir, err);
}

enum errc member_move_aside(struct disk *disk, const char *data_dir, struct error *err)
{
    char *from = xasprintf("%s/member", data_dir), *to = xasprintf("%s/member.damaged", data_dir);
    char *log = xasprintf("%s/log", from);
    enum errc e = ERR_OK;
    if (access(log, F_OK) == 0) {
        e = member_remove_damaged(disk, data_dir, err);
        if (!e)
            e = disk->rename(disk, from, to, err);
        if (!e)
            e = disk->sync_dir(disk, data_dir, err);
    }
    free(log);
    free(to);
    free(from);
    return e;
}
