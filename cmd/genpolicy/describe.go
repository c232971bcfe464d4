// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	"github.com/spf13/cobra"

	"portcullis/rules/settings"
)

func newSettings(io stdio) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "settings",
		Short: "Print the settings of a platform with the meaning of each key, or find those of a cluster",
		Long: `settings prints every key that settings have, with what it means, what values it may have, and the value that it has on the
platform, with what -j names over it. The output is TOML that -j reads: keep the lines that you change, leave out the rest.`,
		Example: `  genpolicy settings --platform peer-pods | less
  genpolicy settings -j cluster.toml | grep read_stream`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			s, err := loadSettings(f, io.err)
			if err != nil {
				return err
			}
			text, err := s.Describe()
			if err == nil {
				_, err = io.out.Write(text)
			}
			return err
		},
	}
	cmd.Flags().StringArrayVarP(&f.settings, "json-settings-path", "j", nil, "settings over the platform's: a `FILE`, a folder of files, or a built-in one (repeatable)")
	cmd.Flags().StringVar(&f.platform, "platform", settings.DefaultPlatform, "`NAME` of where the pods run: "+strings.Join(settings.Platforms(), ", "))
	completeValues(cmd, map[string][]string{"platform": settings.Platforms(), "json-settings-path": settings.DropIns()})
	cmd.AddCommand(newLearn(io))
	return cmd
}
