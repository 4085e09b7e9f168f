/*
 * HMP on a pair of descriptors. Waits for keys, for QEMU's end and for the user's interrupts; a
 * line is carried out before the next one is looked at, as in QEMU.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "monitor/hmp-terminal.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "hmp-editor.h"
#include "hmp-internal.h"
#include "monitor/migrate-front.h"

/* How long an interrupt may stay unnoticed that came just before poll(). */
#define POLL_MS 300
#define PROGRESS_MS 100
#define QUIT_MS 2000

typedef struct Terminal {
    HmpSession *session;
    int in;
    int out;
    HmpTerminalOptions options;
    int interrupts_seen;
    HmpEditor *editor; /* NULL: lines from a pipe */
    gboolean refused;  /* any line was */
    gboolean left;
} Terminal;

/* What cannot be written is lost: whoever reads has gone, and that shows at the next read. */
static void show(const char *text, gsize length, gpointer user)
{
    Terminal *terminal = user;
    while (length > 0) {
        ssize_t written = write(terminal->out, text, length);
        if (written > 0) {
            text += written;
            length -= (gsize)written;
        } else if (errno == EAGAIN) {
            struct pollfd poller = { .fd = terminal->out, .events = POLLOUT };
            poll(&poller, 1, POLL_MS);
        } else if (errno != EINTR) {
            return;
        }
    }
}

static void show_text(Terminal *terminal, const char *text)
{
    show(text, strlen(text), terminal);
}

static GStrv complete(const char *line, gpointer user)
{
    Terminal *terminal = user;
    return hmp_session_complete(terminal->session, line);
}

static gboolean was_interrupted(Terminal *terminal)
{
    if (!terminal->options.interrupts ||
        *terminal->options.interrupts == terminal->interrupts_seen) {
        return FALSE;
    }
    terminal->interrupts_seen = *terminal->options.interrupts;
    return TRUE;
}

static void report_progress(Terminal *terminal, JsonNode *info)
{
    if (terminal->options.progress) {
        terminal->options.progress(info && JSON_NODE_HOLDS_OBJECT(info) ? json_node_get_object(info)
                                                                        : NULL,
                                   terminal->options.user);
    }
}

/* What QEMU says on its standard error, or not at all. */
static void show_outcome(Terminal *terminal, JsonNode *node)
{
    JsonObject *info = node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
    const char *status =
        info ? json_object_get_string_member_with_default(info, "status", NULL) : NULL;
    if (!status || g_str_equal(status, "completed")) {
        return;
    }
    const char *reason = json_object_get_string_member_with_default(info, "error-desc", NULL);
    g_autofree char *text = reason ? g_strdup_printf("Error: %s\r\n", reason)
                                   : g_strdup_printf("Migration status: %s\r\n", status);
    show_text(terminal, text);
    terminal->refused = TRUE;
}

/* Until the migration has ended. The first interrupt cancels it, a second one stops waiting. */
static gboolean wait_for_migration(Terminal *terminal, GError **errp)
{
    gboolean cancelled = FALSE;
    for (;;) {
        g_autoptr(JsonNode) info = NULL;
        GError *error = NULL;
        gboolean goes_on = hmp_session_is_migrating(terminal->session, &info, &error);
        report_progress(terminal, goes_on ? info : NULL);
        if (error) {
            g_propagate_error(errp, error);
            return FALSE;
        }
        gboolean interrupted = was_interrupted(terminal);
        if (!goes_on || (interrupted && cancelled)) {
            report_progress(terminal, NULL);
            show_outcome(terminal, goes_on ? NULL : info);
            return TRUE;
        }
        if (interrupted) {
            hmp_session_cancel(terminal->session);
            cancelled = TRUE;
        }
        g_usleep(PROGRESS_MS * 1000);
    }
}

/* After "quit" QEMU's end is on its way, and no prompt comes any more. */
static void wait_for_quit(Terminal *terminal, const char *line)
{
    HmpLine at = { .at = line };
    g_autofree char *name = hmp_line_take_name(&at);
    struct pollfd poller = { .fd = hmp_session_get_fd(terminal->session), .events = POLLIN };
    if (!g_str_equal(name, "quit") && !g_str_equal(name, "q")) {
        return;
    }
    gint64 end = g_get_monotonic_time() + QUIT_MS * 1000;
    while (g_get_monotonic_time() < end && hmp_session_check(terminal->session, NULL)) {
        poll(&poller, 1, PROGRESS_MS);
    }
}

static gboolean run_line(Terminal *terminal, const char *line, GError **errp)
{
    gboolean wait, refused;
    g_autofree char *text = hmp_session_run(terminal->session, line, &wait, &refused, errp);
    if (!text) {
        return FALSE;
    }
    show_text(terminal, text);
    terminal->refused |= refused;
    wait_for_quit(terminal, line);
    was_interrupted(terminal); /* it has nothing to interrupt any more */
    return (!wait || wait_for_migration(terminal, errp)) &&
           hmp_session_check(terminal->session, errp);
}

/* A snapshot of ours ends with its session: it is waited for. QEMU's own goes on without us. */
static gboolean wait_for_snapshot(Terminal *terminal, GError **errp)
{
    g_autoptr(JsonNode) info = NULL;
    if (!hmp_session_is_migrating(terminal->session, &info, NULL) ||
        !JSON_NODE_HOLDS_OBJECT(info) ||
        !json_object_has_member(json_node_get_object(info), MIGRATE_FRONT_OWN_MEMBER)) {
        return TRUE;
    }
    if (terminal->editor) {
        show_text(terminal, "waiting for the end of the snapshot; Ctrl-C cancels it\r\n");
    }
    return wait_for_migration(terminal, errp);
}

/* Waits for keys. 1 = there are some, 0 = not yet, -1 = QEMU is gone. */
static int wait_for_input(Terminal *terminal, GError **errp)
{
    struct pollfd pollers[] = {
        { .fd = terminal->in, .events = POLLIN },
        { .fd = hmp_session_get_fd(terminal->session), .events = POLLIN },
    };
    int ready = poll(pollers, G_N_ELEMENTS(pollers), POLL_MS);
    if (ready > 0 && pollers[1].revents && !hmp_session_check(terminal->session, errp)) {
        return -1;
    }
    return ready > 0 && pollers[0].revents ? 1 : 0;
}

static gboolean feed(Terminal *terminal, char byte, GError **errp)
{
    if (byte == 4 && terminal->options.leaves_on_ctrl_d && hmp_editor_is_empty(terminal->editor)) {
        show_text(terminal, "\r\n");
        terminal->left = TRUE;
        return TRUE;
    }
    g_autofree char *line = hmp_editor_feed(terminal->editor, byte);
    if (!line) {
        return TRUE;
    }
    if (!run_line(terminal, line, errp)) {
        return FALSE;
    }
    hmp_editor_prompt(terminal->editor);
    return TRUE;
}

/* Reads what is there. The end of input is the end of the session. */
static gboolean read_keys(Terminal *terminal, GError **errp)
{
    char keys[512];
    ssize_t got = read(terminal->in, keys, sizeof(keys));
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) {
        return TRUE;
    }
    if (got <= 0) {
        terminal->left = TRUE;
        return TRUE;
    }
    for (ssize_t i = 0; i < got && !terminal->left; i++) {
        if (!feed(terminal, keys[i], errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean serve_keys(Terminal *terminal, GError **errp)
{
    while (!terminal->left) {
        int ready = wait_for_input(terminal, errp);
        if (ready < 0 || (ready > 0 && !read_keys(terminal, errp))) {
            return FALSE;
        }
        if (was_interrupted(terminal)) {
            show_text(terminal, "^C\r\n");
            hmp_editor_prompt(terminal->editor);
        }
    }
    return wait_for_snapshot(terminal, errp);
}

gboolean hmp_terminal_run(HmpSession *session, int in, int out, const HmpTerminalOptions *options,
                          GError **errp)
{
    static const HmpEditorOps ops = { .show = show, .complete = complete };
    Terminal terminal = { .session = session, .in = in, .out = out, .options = *options };
    g_autoptr(HmpEditor) editor = hmp_editor_new(&ops, &terminal);
    guint version = hmp_session_get_version(session);
    g_autofree char *banner =
        g_strdup_printf("QEMU %u.%u.%u monitor - type 'help' for more information\r\n",
                        version / 10000, version / 100 % 100, version % 100);
    terminal.editor = editor;
    was_interrupted(&terminal);
    show_text(&terminal, banner);
    hmp_editor_prompt(editor);
    return serve_keys(&terminal, errp);
}

/* Carries out the complete lines of @input and takes them out of it. */
static gboolean run_complete_lines(Terminal *terminal, GString *input, GError **errp)
{
    char *end;
    while ((end = memchr(input->str, '\n', input->len))) {
        g_autofree char *line = g_strndup(input->str, (gsize)(end - input->str));
        g_string_erase(input, 0, end + 1 - input->str);
        if (*g_strstrip(line) && !run_line(terminal, line, errp)) {
            return FALSE;
        }
    }
    return TRUE;
}

gboolean hmp_terminal_run_lines(HmpSession *session, int in, int out,
                                const HmpTerminalOptions *options, gboolean *refused, GError **errp)
{
    Terminal terminal = { .session = session, .in = in, .out = out, .options = *options };
    g_autoptr(GString) input = g_string_new(NULL);
    gboolean good = TRUE;
    while (good && !terminal.left) {
        char bytes[4096];
        int ready = wait_for_input(&terminal, errp);
        ssize_t got = ready > 0 ? read(in, bytes, sizeof(bytes)) : 0;
        if (ready < 0) {
            good = FALSE;
        } else if (got > 0) {
            g_string_append_len(input, bytes, got);
            good = run_complete_lines(&terminal, input, errp);
        } else if (ready > 0 && !(got < 0 && errno == EINTR)) {
            /* The last line may have no end. */
            terminal.left = TRUE;
            g_string_append_c(input, '\n');
            good = run_complete_lines(&terminal, input, errp);
        }
        terminal.left |= was_interrupted(&terminal);
    }
    good = good && wait_for_snapshot(&terminal, errp);
    if (refused) {
        *refused = terminal.refused;
    }
    return good;
}
