document.title += " 0.33.0";
