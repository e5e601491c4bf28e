package main

import (
	"cmp"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"healthgate/internal/envoyadmin"
)

// adminFlag adds --admin, whose default is ADMIN_ADDRESS.
func adminFlag(command *cobra.Command) *string {
	return command.Flags().String("admin", cmp.Or(os.Getenv("ADMIN_ADDRESS"), envoyadmin.DefaultAddress),
		"address of admin: host:port, or unix:///path; also ADMIN_ADDRESS")
}

// noArgument refuses arguments. The error says how to write admin's address.
func noArgument(command *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument: write --admin %s", command.Name(), args[0])
	}
	return nil
}
