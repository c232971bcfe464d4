// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// holdArguments makes every command say, on a wrong number of arguments, how it is called.
func holdArguments(cmd *cobra.Command) {
	for _, child := range cmd.Commands() {
		holdArguments(child)
		if child.Args == nil {
			continue
		}
		check := child.Args
		child.Args = func(cmd *cobra.Command, args []string) error {
			if check(cmd, args) == nil {
				return nil
			}
			path := cmd.CommandPath()
			return usageError(fmt.Errorf("want %s%s; see %s --help", path, strings.TrimPrefix(cmd.Use, cmd.Name()), path))
		}
	}
}

// knownVerb refuses what is no verb, and tells which one may be meant.
func knownVerb(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("there is no verb %q", args[0])
	if like := root.SuggestionsFor(args[0]); len(like) > 0 {
		text += ", do you mean " + strings.Join(like, " or ") + "?"
	}
	return usageError(errors.New(text + "; see policyctl --help"))
}
