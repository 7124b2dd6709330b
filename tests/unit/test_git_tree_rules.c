/* Which trees and .gitmodules files are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include "spaced/git/tree_rules.h"

static void dotgit_and_its_look_alikes(void **state)
{
	static const char *const bad[] = {".git",
					  ".GIT",
					  ".gIt",
					  ".git.",
					  ".git ",
					  ".git . .",
					  "git~1",
					  "GIT~1",
					  "git~1.",
					  ".git:x",
					  ".git::$INDEX_ALLOCATION",
					  ".git\\x",
					  "a\\.git",
					  "a\\b\\GIT~1",
					  ".g\xe2\x80\x8cit",
					  "\xe2\x80\x8e.git",
					  ".gi\xef\xbb\xbft",
					  ".git\xe2\x81\xaa",
					  ".GI\xe2\x80\xaaT\xe2\x80\xac"};
	static const char *const good[] = {"git",   ".gitx",  ".gitignore", ".gitmodules",     ".github",
					   "git~2", "git~10", ".gi",	    "x.git",	       ".git\xc3\xa9",
					   ". git", ".git-x", "a.git.b",    "\xe2\x82\xac.git"};

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (!tree_is_dotgit(STRZ(bad[i])))
			fail_msg("accepted: %s", bad[i]);
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		if (tree_is_dotgit(STRZ(good[i])))
			fail_msg("refused: %s", good[i]);
}

static void entries(void **state)
{
	static const struct {
		uint32_t mode;
		const char *name;
		bool ok;
	} cases[] = {
	    {0100644, "a", true},
	    {0100755, "a", true},
	    {0100664, "a", true}, /* written by very old git */
	    {0120000, "a", true},
	    {0160000, "a", true},
	    {040000, "a", true},
	    {0100600, "a", false},
	    {0104755, "a", false},
	    {0, "a", false},
	    {060000, "a", false},
	    {0100644, "", false},
	    {0100644, ".", false},
	    {040000, "..", false},
	    {0100644, "...", true},
	    {0100644, "a/b", false},
	    {0160000, ".git", false},
	    {0120000, ".gitmodules", false},
	    {0120000, ".GITMODULES", false},
	    {0120000, "GITMOD~1", false},
	    {0120000, ".gitattributes", false},
	    {0120000, ".gitignore", false},
	    {0100644, ".gitmodules", true},
	    {0120000, "README.md", true},
	    {0100644, "Icon\r", true},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct tree_entry e = {cases[i].mode, STRZ(cases[i].name), NULL};
		if ((tree_entry_error(&e) == NULL) != cases[i].ok)
			fail_msg("%o %s", cases[i].mode, cases[i].name);
	}
}

#define OID "01234567890123456789"

static void check_tree(const char *raw, size_t n, const char *want)
{
	const char *why = tree_error((struct str){raw, n});

	if (want ? !why || !strstr(why, want) : why != NULL)
		fail_msg("wanted %s, got %s", want ? want : "accepted", why ? why : "accepted");
}
#define TREE(lit, want) check_tree(lit, sizeof(lit) - 1, want)

static void whole_trees(void **state)
{
	TREE("", NULL);
	TREE("100644 a\0" OID, NULL);
	TREE("100644 a\0" OID "100644 b\0" OID, NULL);
	TREE("100644 b\0" OID "100644 a\0" OID, "sorted");
	TREE("100644 a\0" OID "100644 a\0" OID, "twice");
	TREE("100644 a\0" OID "40000 a\0" OID, "twice");
	TREE("100644 a\0" OID "100644 a.c\0" OID "40000 a\0" OID, "twice");
	TREE("100644 a.c\0" OID "40000 a\0" OID "100644 a0\0" OID, NULL); /* "a.c" < "a/" < "a0" */
	TREE("40000 a\0" OID "100644 a.c\0" OID, "sorted");
	TREE("0100644 a\0" OID, "malformed");
	TREE("100844 a\0" OID, "malformed");
	TREE("777777777777 a\0" OID, "malformed");
	TREE(" a\0" OID, "malformed");
	TREE("100644 a", "malformed");
	TREE("100644 a\0short", "malformed");
	TREE("100644 a\0" OID "1", "malformed");
	TREE("40000 .git\0" OID, ".git");
}

static void gitmodules(void **state)
{
	static const char *const good[] = {
	    "",
	    "[submodule \"a\"]\n\tpath = a\n\turl = https://example.org/a.git\n",
	    "[submodule \"a..b/c\"]\n\turl = ../sibling.git\n\tupdate = checkout\n",
	    "# url = -x\n",
	    "[core]\n\tx = -1\n",
	};
	static const char *const bad[] = {
	    "[submodule \"..\"]\n",
	    "[submodule \"a/../b\"]\n",
	    "[submodule \"a\\..\\b\"]\n",
	    "[submodule \"\"]\n",
	    "[submodule \"a\"]\n\turl = -u./x\n",
	    "[submodule \"a\"]\n\tURL=\"-u./x\"\n",
	    "[submodule \"a\"] url = -u./x\n",
	    "[submodule \"a\"]\n\tpath = -x",
	    "[submodule \"a\"]\n\tupdate = !echo\n",
	    "[submodule \"a\"]\n\turl = https://x/%0ahost=evil\n",
	    "[submodule \"a\"]\n\turl = ext::sh -c x\n",
	};

	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		if (gitmodules_error(STRZ(good[i])))
			fail_msg("refused: %s", good[i]);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (!gitmodules_error(STRZ(bad[i])))
			fail_msg("accepted: %s", bad[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(dotgit_and_its_look_alikes),
	    cmocka_unit_test(entries),
	    cmocka_unit_test(whole_trees),
	    cmocka_unit_test(gitmodules),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
