/* See tree_rules.h. The look-alike rules follow git's path.c (is_ntfs_dotgit) and utf8.c (is_hfs_dotgit). */
#include "spaced/git/tree_rules.h"

#include <git2/sys/path.h>
#include <stdlib.h>
#include <string.h>

int tree_next(struct str *rest, struct tree_entry *e)
{
	const char *p = rest->p, *end = rest->p + rest->n;
	uint32_t mode = 0;

	if (p == end)
		return 0;
	if (*p == '0') /* zero-padded: the same tree would have two ids */
		return -1;
	for (; p < end && *p != ' '; p++) {
		if (*p < '0' || *p > '7' || mode > 0177777)
			return -1;
		mode = mode << 3 | (uint32_t)(*p - '0');
	}
	if (p == end || p == rest->p)
		return -1;
	p++;
	const char *nul = memchr(p, '\0', (size_t)(end - p));
	if (!nul || end - nul < 21)
		return -1;
	*e = (struct tree_entry){mode, {p, (size_t)(nul - p)}, (const uint8_t *)nul + 1};
	*rest = (struct str){nul + 21, (size_t)(end - nul) - 21};
	return 1;
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* ".git" or its short name "git~1", then anything that NTFS drops or takes for a stream. */
static bool is_ntfs_dotgit(struct str s)
{
	static const char *const forms[] = {".git", "git~1"};

	for (size_t f = 0; f < 2; f++) {
		size_t n = strlen(forms[f]), i = 0;
		while (i < n && i < s.n && lower(s.p[i]) == forms[f][i])
			i++;
		if (i < n)
			continue;
		while (i < s.n && (s.p[i] == '.' || s.p[i] == ' '))
			i++;
		if (i == s.n || s.p[i] == ':' || s.p[i] == '\\')
			return true;
	}
	return false;
}

/* Code points that HFS+ ignores when it compares names. */
static bool hfs_ignores(uint32_t c)
{
	return (c >= 0x200c && c <= 0x200f) || (c >= 0x202a && c <= 0x202e) || (c >= 0x206a && c <= 0x206f) ||
	       c == 0xfeff;
}

static bool is_hfs_dotgit(struct str s)
{
	const char *want = ".git";
	const uint8_t *p = (const uint8_t *)s.p;

	for (size_t i = 0; i < s.n;) {
		if (s.n - i >= 3 && (p[i] & 0xf0) == 0xe0) {
			uint32_t c = (p[i] & 0xfU) << 12 | (p[i + 1] & 0x3fU) << 6 | (p[i + 2] & 0x3fU);
			if (!hfs_ignores(c))
				return false;
			i += 3;
		} else if (*want && lower(s.p[i]) == *want) {
			want++;
			i++;
		} else {
			return false;
		}
	}
	return *want == '\0';
}

bool tree_is_dotgit(struct str name)
{
	if (is_hfs_dotgit(name))
		return true;
	/* A backslash separates folders on Windows: "a\.git\config". */
	for (;;) {
		if (is_ntfs_dotgit(name))
			return true;
		const char *slash = memchr(name.p, '\\', name.n);
		if (!slash)
			return false;
		name = (struct str){slash + 1, name.n - (size_t)(slash + 1 - name.p)};
	}
}

static bool is_gitfile(struct str name, git_path_gitfile kind)
{
	return name.n && git_path_is_gitfile(name.p, name.n, kind, GIT_PATH_FS_GENERIC) > 0;
}

bool tree_is_gitmodules(struct str name)
{
	return is_gitfile(name, GIT_PATH_GITFILE_GITMODULES);
}

static bool mode_ok(uint32_t mode)
{
	/* 100664 was written by very old git and is read as 100644. */
	return mode == TREE_MODE_DIR || mode == 0100644 || mode == 0100755 || mode == 0100664 ||
	       mode == TREE_MODE_LINK || mode == TREE_MODE_GITLINK;
}

const char *tree_entry_error(const struct tree_entry *e)
{
	if (!mode_ok(e->mode))
		return "tree entry with a forbidden mode";
	if (e->name.n == 0)
		return "tree entry with an empty name";
	if (str_eq(e->name, ".") || str_eq(e->name, ".."))
		return "tree entry named \".\" or \"..\"";
	if (memchr(e->name.p, '/', e->name.n) || memchr(e->name.p, '\0', e->name.n))
		return "tree entry with a slash in its name";
	if (tree_is_dotgit(e->name))
		return "tree entry named \".git\", or what some file system takes for it";
	if (e->mode == TREE_MODE_LINK &&
	    (tree_is_gitmodules(e->name) || is_gitfile(e->name, GIT_PATH_GITFILE_GITATTRIBUTES) ||
	     is_gitfile(e->name, GIT_PATH_GITFILE_GITIGNORE)))
		return "a symlink in place of .gitmodules, .gitattributes or .gitignore";
	return NULL;
}

static int bytes_cmp(struct str a, struct str b)
{
	int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);

	return c ? c : (a.n > b.n) - (a.n < b.n);
}

/* git compares names as if a folder's ended in '/'. */
static int entry_cmp(const struct tree_entry *a, const struct tree_entry *b)
{
	size_t n = a->name.n < b->name.n ? a->name.n : b->name.n;
	int c = memcmp(a->name.p, b->name.p, n);

	if (c)
		return c;
	int ca = a->name.n > n ? (uint8_t)a->name.p[n] : a->mode == TREE_MODE_DIR ? '/' : 0;
	int cb = b->name.n > n ? (uint8_t)b->name.p[n] : b->mode == TREE_MODE_DIR ? '/' : 0;
	return ca - cb;
}

static int name_order(const void *a, const void *b)
{
	return bytes_cmp(*(const struct str *)a, *(const struct str *)b);
}

/* "x" as a file and "x" as a folder need not be neighbours ("x", "x.c", "x/"), so order alone does not show it. */
static bool has_twin(struct str raw, size_t n)
{
	struct str *names = xcalloc(n ? n : 1, sizeof *names);
	struct tree_entry e;
	bool twin = false;

	for (size_t i = 0; tree_next(&raw, &e) == 1; i++)
		names[i] = e.name;
	qsort(names, n, sizeof *names, name_order);
	for (size_t i = 1; i < n && !twin; i++)
		twin = bytes_cmp(names[i - 1], names[i]) == 0;
	free(names);
	return twin;
}

const char *tree_error(struct str raw)
{
	struct str rest = raw;
	struct tree_entry e, prev = {0};
	size_t n = 0;
	bool dirs = false, others = false;
	int more;

	while ((more = tree_next(&rest, &e)) == 1) {
		const char *why = tree_entry_error(&e);
		if (why)
			return why;
		int c = n ? entry_cmp(&prev, &e) : -1;
		if (c >= 0)
			return c ? "tree is not sorted" : "tree has the same name twice";
		*(e.mode == TREE_MODE_DIR ? &dirs : &others) = true;
		prev = e;
		n++;
	}
	if (more < 0)
		return "malformed tree";
	return dirs && others && has_twin(raw, n) ? "tree has the same name twice" : NULL;
}

static struct str trim(struct str s)
{
	while (s.n && strchr(" \t\r", s.p[0]))
		s = (struct str){s.p + 1, s.n - 1};
	while (s.n && strchr(" \t\r", s.p[s.n - 1]))
		s.n--;
	return s;
}

static const char *last_of(struct str s, char c)
{
	for (size_t i = s.n; i > 0; i--)
		if (s.p[i - 1] == c)
			return s.p + i - 1;
	return NULL;
}

static bool has(struct str s, const char *what)
{
	return memmem(s.p, s.n, what, strlen(what)) != NULL;
}

/* [submodule "name"]: the name becomes a folder below .git/modules. */
static const char *section_error(struct str line)
{
	const char *open = memchr(line.p, '"', line.n);
	const char *close = last_of(line, '"');

	if (!open || open == close)
		return NULL;
	struct str name = {open + 1, (size_t)(close - open) - 1};
	if (name.n == 0)
		return ".gitmodules: a submodule with an empty name";
	while (name.n) {
		size_t n = 0;
		while (n < name.n && name.p[n] != '/' && name.p[n] != '\\')
			n++;
		if (n == 2 && !memcmp(name.p, "..", 2))
			return ".gitmodules: a submodule name with \"..\"";
		n += n < name.n;
		name = (struct str){name.p + n, name.n - n};
	}
	return NULL;
}

static const char *value_error(struct str key, struct str v)
{
	if (v.n >= 1 && v.p[0] == '"')
		v = (struct str){v.p + 1, v.n - 1};
	bool url = str_ieq(key, "url"), path = str_ieq(key, "path");
	if ((url || path) && v.n && v.p[0] == '-')
		return ".gitmodules: a url or path that begins with a dash";
	if (url && (has(v, "\\n") || has(v, "%0a") || has(v, "%0A") || has(v, "ext::") || has(v, "fd::")))
		return ".gitmodules: a url with a line break or a helper command";
	if (str_ieq(key, "update") && v.n && v.p[0] == '!')
		return ".gitmodules: an update command";
	return NULL;
}

const char *gitmodules_error(struct str text)
{
	while (text.n) {
		const char *nl = memchr(text.p, '\n', text.n);
		size_t n = nl ? (size_t)(nl - text.p) : text.n;
		struct str line = trim((struct str){text.p, n});
		const char *why = NULL;
		const char *bracket = line.n && line.p[0] == '[' ? last_of(line, ']') : NULL;
		if (bracket) {
			why = section_error((struct str){line.p, (size_t)(bracket - line.p)});
			/* "[section] key = value" on one line is valid too */
			line = trim((struct str){bracket + 1, line.n - (size_t)(bracket + 1 - line.p)});
		}
		const char *eq = line.n ? memchr(line.p, '=', line.n) : NULL;
		if (!why && eq)
			why = value_error(trim((struct str){line.p, (size_t)(eq - line.p)}),
					  trim((struct str){eq + 1, line.n - (size_t)(eq + 1 - line.p)}));
		if (why)
			return why;
		n += nl ? 1 : 0;
		text = (struct str){text.p + n, text.n - n};
	}
	return NULL;
}
