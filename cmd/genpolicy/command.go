// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"portcullis/cmd/manual"
	"portcullis/internal/version"
	"portcullis/rules/generate"
	"portcullis/rules/learn"
	"portcullis/rules/settings"
)

// stdio is what a command reads and writes.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// Exit codes.
const (
	exitDone    = 0
	exitRefused = 1
	exitUsage   = 2
	exitFailed  = 3
)

// errUsage is wrapped by errors of how the command was called.
var errUsage = errors.New("usage")

func usagef(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errUsage, fmt.Sprintf(format, args...))
}

// run is the whole command. It returns the exit code.
func run(ctx context.Context, args []string, io stdio) int {
	cmd := newCommand(io)
	cmd.SetArgs(args)
	cmd.SetIn(io.in)
	cmd.SetOut(io.out)
	cmd.SetErr(io.err)
	called, err := cmd.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	if errors.Is(err, errUsage) {
		text := strings.TrimPrefix(err.Error(), errUsage.Error()+": ")
		fmt.Fprintf(io.err, "genpolicy: %s; see %s --help\n", text, called.CommandPath())
		return exitUsage
	}
	if found, only := generate.Findings(err); only {
		for _, f := range found {
			fmt.Fprintf(io.err, "genpolicy: %s\n", f)
		}
		return exitRefused
	}
	for _, line := range parts(err) {
		fmt.Fprintf(io.err, "genpolicy: %s\n", strings.ReplaceAll(line, "\n", "; "))
	}
	if errors.Is(err, errStale) || errors.Is(err, learn.ErrBound) {
		return exitRefused
	}
	return exitFailed
}

// parts returns the texts of the errors that were joined into one.
func parts(err error) []string {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []string{err.Error()}
	}
	var all []string
	for _, e := range joined.Unwrap() {
		all = append(all, parts(e)...)
	}
	if strings.Join(all, "\n") != err.Error() { // several causes of one error
		return []string{err.Error()}
	}
	return all
}

// flags are the command line as written.
type flags struct {
	yamlFiles                []string
	output                   string
	configFiles              []string
	rules                    string
	settings                 []string
	platform, annotation     string
	initdata                 string
	issuers, imagePolicy     string
	raw, base64, compact     bool
	dryRun, json             bool
	ignoreUnknown            bool
	lockDigests, needDigests bool
	statement                string
	runtimeClasses           []string
	images                   imageFlags
}

const about = `genpolicy reads Kubernetes manifests and writes, for every pod in them, the policy
that the pod's guest will hold the host to. The policy goes into an annotation;
every other byte of the manifest stays as it is.

Each FILE (or every manifest in a folder) is changed in place. "-", or no FILE,
is stdin, whose manifest is written to stdout.

Exit codes: 0 done, 1 a manifest was refused, 2 wrong usage, 3 something could not
be read or written, 130 interrupted.`

const examples = `  genpolicy -y pod.yaml                                  change the file in place
  helm template . | genpolicy > pods.yaml                stdin to stdout
  genpolicy -y manifests/ --lock-digests                 every manifest of a folder, images by digest
  genpolicy -y pod.yaml -j logs --output with-logs.yaml  kubectl logs allowed, into another file
  genpolicy explain pod.yaml                             what its policy allows
  genpolicy check manifests/                             are the policies in them what they would be made now?`

func newCommand(io stdio) *cobra.Command {
	var f flags
	var maps []string
	cmd := &cobra.Command{
		Use:           "genpolicy [FILE|DIR]...",
		Short:         "Make the policies of Kubernetes manifests",
		Long:          about,
		Example:       examples,
		Version:       version.Text(),
		Args:          filesExist,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, files []string) error {
			f.takeMaps(maps, io.err)
			f.yamlFiles = append(f.yamlFiles, files...)
			return makePolicies(cmd.Context(), f, io)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usagef("%v", err) })
	cmd.SetVersionTemplate("genpolicy {{.Version}}")
	set := cmd.Flags()
	set.SortFlags = false
	set.StringArrayVarP(&f.yamlFiles, "yaml-file", "y", nil, "manifest `FILE` or folder, as an argument (repeatable)")
	f.addSources(set, &maps)
	set.BoolVarP(&f.raw, "raw-out", "r", false, "print the policies as text")
	set.BoolVarP(&f.base64, "base64-out", "b", false, "print the values of the annotations")
	set.StringVar(&f.output, "output", "", "write to `FILE` what would be changed in place or printed")
	set.BoolVar(&f.dryRun, "dry-run", false, "make the policies and say what would be written; write nothing")
	set.BoolVar(&f.json, "json", false, "print what was done as JSON, warnings included, instead of lines on stderr")
	set.BoolVar(&f.lockDigests, "lock-digests", false, "write the digest of each image into the manifest")
	set.StringVar(&f.statement, "statement", "", "write to `FILE` what the policies were made from, as an in-toto statement (policyctl statement signs it)")
	set.BoolP("version", "v", false, "print the version")
	completeSources(cmd)
	cmd.AddCommand(newExplain(io), newCheck(io), newSettings(io), manual.NewCommand())
	return cmd
}

// requireDigests says whether a tag is no name for an image: what was checked is a digest, and a tag can be moved behind it.
func (f *flags) requireDigests() bool { return f.needDigests || len(f.images.keys) > 0 }

// takeMaps takes the files of a flag by its old name.
func (f *flags) takeMaps(maps []string, out io.Writer) {
	if len(maps) > 0 {
		fmt.Fprintln(out, "genpolicy: warning: --config-map-file is deprecated, use --config-file")
	}
	f.configFiles = append(f.configFiles, maps...)
}

// addSources adds the flags that say what a policy is made from, and in which form.
func (f *flags) addSources(set *pflag.FlagSet, maps *[]string) {
	set.StringArrayVar(&f.configFiles, "config-file", nil, "`FILE` with ConfigMaps and Secrets that pods refer to (repeatable)")
	set.StringArrayVarP(maps, "config-map-file", "c", nil, "`FILE` for --config-file (deprecated name)")
	set.StringVarP(&f.rules, "rego-rules-path", "p", "", "`FILE` with rules to use instead of the built-in ones")
	set.StringArrayVarP(&f.settings, "json-settings-path", "j", nil,
		"settings over the platform's: a `FILE`, a folder of files, or one of "+strings.Join(settings.DropIns(), ", ")+" (repeatable)")
	set.StringVar(&f.platform, "platform", settings.DefaultPlatform, "`NAME` of where the pods run: "+strings.Join(settings.Platforms(), ", "))
	set.StringVar(&f.annotation, "annotation", "", "`KIND` of annotation that takes policies into the guest: initdata or policy (default: the platform's)")
	set.StringVar(&f.initdata, "initdata-path", "", "initdata `FILE` (TOML) whose other keys are kept")
	set.BoolVar(&f.compact, "compact", false, "write policies that name the rules instead of holding them; the guest must have them")
	set.BoolVarP(&f.ignoreUnknown, "silent-unsupported-fields", "s", false, "warn of fields that Kubernetes does not know instead of refusing them")
	set.StringArrayVar(&f.runtimeClasses, "runtime-class-names", nil, "only for pods whose runtimeClassName begins with `NAME` (repeatable)")
	set.StringVar(&f.imagePolicy, "image-policy", "", "`FILE` (containers-policy.json) by which the guest judges the images that it pulls, put into cdh.toml of initdata")
	set.StringVar(&f.issuers, "issuers", "", "`FILE` that names who may update the policies by signed fragments, see policyctl fragment issuer")
	set.BoolVar(&f.needDigests, "require-digests", false, "refuse images that are named by a tag")
	f.images.add(set)
}

// completeSources has shells offer the values of the flags of addSources.
func completeSources(cmd *cobra.Command) {
	completeValues(cmd, map[string][]string{
		"platform": settings.Platforms(), "json-settings-path": settings.DropIns(),
		"annotation": {string(settings.Initdata), string(settings.Policy)},
	})
}

// completeValues has shells offer the values of flags. Files are offered beside them.
func completeValues(cmd *cobra.Command, values map[string][]string) {
	for flag, names := range values {
		offer := func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return names, cobra.ShellCompDirectiveDefault
		}
		if err := cmd.RegisterFlagCompletionFunc(flag, offer); err != nil {
			panic("genpolicy: " + err.Error()) // a flag that is not there
		}
	}
}

func noArguments(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%q is not a command", args[0])
	}
	return nil
}

// filesExist refuses an argument that is neither a file nor written like one: it was to be a command.
func filesExist(_ *cobra.Command, args []string) error {
	for _, arg := range args {
		if _, err := os.Stat(arg); err != nil && arg != "-" && !strings.ContainsAny(arg, "./") {
			return usagef("%q is neither a command nor a file", arg)
		}
	}
	return nil
}
